package tier

import (
	"context"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

// Cluster is what a cache needs of the network: the members, and a way to call one of them. *peer.Node implements it.
// All methods are safe for concurrent use.
//
// A cache uses these further methods if a Cluster has them, as *peer.Node does:
//
//   - Logger() *slog.Logger is the default of Config.Logger.
//   - ValueLimit() int is the length, in bytes, of the longest value that it carries.
//   - SharesMove() bool reports whether members join and leave. A new cache then waits for the reports of the others
//     before it takes its share of the cap.
//   - EarlierStart() bool reports whether an earlier process with this node's name may be alive. No member reports the
//     loads of that process, so a new cache waits until they must have ended.
//   - Lost(name string) bool reports whether a member that is not in the view is gone without having left.
//   - Send is the first half of Call. With it one goroutine can call several members.
type Cluster interface {
	// Name is this node's stable name.
	Name() string
	// View is the newest view: one atomic load, never nil.
	View() *ring.View
	// ViewChanged returns a channel that is closed when View next changes.
	ViewChanged() <-chan struct{}
	// Divisor returns the number of members among which a cluster-wide cap is divided, and this node's rank among them,
	// counting from 0. It must not block. Members that vanished without leaving still count, so that a partition cannot
	// raise the cap, unless they are known to have ended.
	Divisor() (members, rank int)
	// Register makes h answer the requests for the namespace that reach this node. schema is the fingerprint of the
	// namespace's contract: a request with another fingerprint is rejected. Register fails if the namespace is taken on
	// this node. After unregister returns, no new request reaches h.
	Register(namespace string, schema uint64, h codec.Handler) (unregister func(), err error)
	// Call sends req to a member and fills resp with the answer, which the caller
	// must Release. It ends with ctx, or after req.Timeout if that is set. An error that is
	// not the context's means that the member could not be asked or did not answer.
	// req and what it points to are not used after Call returns.
	Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error
}

// sender is a Cluster that can send a request without waiting for the answer.
type sender interface {
	// Send sends call.Req, a multi-get, to a member and returns. call.Done receives call when the call has ended.
	// call.Err is then what Call would return, and call.Resp must be released if call.Err is nil. Until then call and
	// what it points to belong to Send. Send returns false if the request cannot be sent at once; then nothing has been
	// done, and Call may help.
	Send(ctx context.Context, to ring.Member, call *codec.Call) bool
}
