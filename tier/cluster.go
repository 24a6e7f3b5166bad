package tier

import (
	"context"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

// Cluster is what a cache needs of the network: who the members are, and a way to ask one of them.
// *peer.Node satisfies it. All methods are safe for concurrent use.
//
// A Cluster may have further methods, as *peer.Node does, of which a cache makes use: Logger()
// *slog.Logger is the default of Config.Logger; ValueLimit() int is the longest value, in bytes,
// that it carries; SharesMove() bool reports whether members join and leave, so that a new cache has to wait for the others' words before
// it takes its share of the cap; EarlierStart() bool reports whether another process may be alive that had this node's name before, whose loads
// nobody speaks of, so that a new cache waits until they must have ended; Lost(name string) bool reports whether a member that is not in the view is gone
// without having left; Send is the first half of Call, so that one goroutine can ask several members.
type Cluster interface {
	// Name is this node's stable name.
	Name() string
	// View is the newest view: one atomic load, never nil.
	View() *ring.View
	// ViewChanged returns a channel that is closed when View next changes.
	ViewChanged() <-chan struct{}
	// Divisor says among how many members a cluster-wide cap is divided and which of them this node
	// is, counting from 0. It must not block. Members that vanished without leaving still count, so that a partition
	// cannot raise the cap, unless it is known that they have ended.
	Divisor() (members, rank int)
	// Register makes h answer the requests for the namespace that reach this node.
	// schema is the fingerprint of the namespace's contract: a request with another
	// one is refused. It is an error if the namespace is taken on this node. After
	// unregister returns no new request reaches h.
	Register(namespace string, schema uint64, h codec.Handler) (unregister func(), err error)
	// Call sends req to a member and fills resp with the answer, which the caller
	// must Release. It ends with ctx, or after req.Timeout if that is set. An error that is
	// not the context's means that the member could not be asked or did not answer.
	// req and what it points to are not used after Call returns.
	Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error
}

// sender is a Cluster that can ask without waiting.
type sender interface {
	// Send sends call.Req, a get of many, to a member, and returns; call.Done gets call when it has ended: call.Err is as
	// Call's error, and call.Resp must be released if that is nil. call and what it points to are Send's until then.
	// false: the request cannot be sent at once, and nothing has been done; Call may help.
	Send(ctx context.Context, to ring.Member, call *codec.Call) bool
}
