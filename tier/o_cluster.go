package tier

import (
	"context"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

// sender is a Cluster that can send a request without waiting for the answer.
type sender interface {
	// Send sends call.Req, a multi-get, to a member and returns. call.Done receives call when the call has ended.
	// call.Err is then what Call would return, and call.Resp must be released if call.Err is nil. Until then call and
	// what it points to belong to Send. Send returns false if the request cannot be sent at once; then nothing has been
	// done, and Call may help.
	Send(ctx context.Context, to ring.Member, call *codec.Call) bool
}
