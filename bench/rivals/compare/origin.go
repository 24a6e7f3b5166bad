package main

import (
	"context"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/weircache/weir/bench/harness"
)

// origin is the origin as one node loads from it. It is safe for concurrent use.
type origin struct {
	env  harness.Env
	node int
}

// loader is the key of the loading node in the context of a load, for limited.
type loader struct{}

// load loads a key. The load ends with ctx, or after the scenario's timeout.
func (o origin) load(ctx context.Context, key string) ([]byte, error) {
	ctx, cancel := o.inTime(ctx)
	defer cancel()
	return o.env.Load(context.WithValue(ctx, loader{}, o.node), key)
}

// loadForAll loads a key for other callers as well: the load does not end with the caller of ctx.
func (o origin) loadForAll(ctx context.Context, key string) ([]byte, error) {
	return o.load(context.WithoutCancel(ctx), key)
}

// inTime returns a context that ends after the timeout of a load.
func (o origin) inTime(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, o.timeout())
}

func (o origin) timeout() time.Duration { return o.env.Scenario.Cluster.Timeout.D() }

// ttl returns how long a value is fresh.
func (o origin) ttl() time.Duration { return o.env.Scenario.Cluster.Freshness.TTL.D() }

// overrun is how long a caller may wait beyond its deadline.
const overrun = 10 * time.Millisecond

// leave runs get, which may wait for a load of another caller without regard to its own, and returns when ctx ends.
// Only a get that the timeout of a load would not end in time needs a goroutine.
func (o origin) leave(ctx context.Context, get func() ([]byte, error)) ([]byte, error) {
	if end, ok := ctx.Deadline(); !ok || time.Until(end) >= o.timeout()-overrun {
		return get()
	}
	answers := make(chan singleflight.Result, 1)
	go func() {
		b, err := get()
		answers <- singleflight.Result{Val: b, Err: err}
	}()
	return await(ctx, answers)
}

// flights are the loads of a node, which the callers of a key share through x/sync/singleflight. Safe for concurrent use.
type flights struct {
	origin
	group singleflight.Group
}

// do returns what fill returns, or joins a fill of the key that runs already. The fill does not end with its caller,
// and each caller's wait ends with its own ctx.
func (f *flights) do(ctx context.Context, key string, fill func(ctx context.Context) ([]byte, error)) ([]byte, error) {
	return await(ctx, f.start(ctx, key, fill))
}

// start is do without the wait.
func (f *flights) start(ctx context.Context, key string, fill func(ctx context.Context) ([]byte, error)) <-chan singleflight.Result {
	return f.group.DoChan(key, func() (any, error) {
		ctx, cancel := f.inTime(context.WithoutCancel(ctx))
		defer cancel()
		return fill(ctx)
	})
}

// await returns the value of a flight, unless ctx ends first.
func await(ctx context.Context, answers <-chan singleflight.Result) ([]byte, error) {
	select {
	case r := <-answers:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.([]byte), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
