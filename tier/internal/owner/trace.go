package owner

import (
	"context"

	"github.com/weircache/weir/codec"
)

// traceOf returns the work that ctx belongs to, if it is followed.
func (c *Owner) traceOf(ctx context.Context) (t codec.Trace) {
	if c.Config.Tracing != nil {
		t = c.Config.Tracing.Trace(ctx)
	}
	return t
}

// serveTraced traces what another member's request causes on this node. The caller calls end with the answer.
func (c *Owner) serveTraced(ctx context.Context, req *codec.Request) (_ context.Context, end func(resp *codec.Response)) {
	if c.Config.Tracing == nil || req.Flags&codec.FlagTrace == 0 || req.Kind != codec.KindGet {
		return ctx, func(*codec.Response) {}
	}
	return c.Config.Tracing.Serve(ctx, req)
}
