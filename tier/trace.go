package tier

import (
	"context"
	"errors"
	"fmt"
	"runtime/pprof"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

// Work is what a Tracer is told of.
type Work struct {
	// Kind is "fill": one run of the loader; "get", "getmany" or "put": a question to the owner of a key, or of
	// several; "serve": a get of another member whose tracer is a Carrier, here, if it has to wait; or
	// "invalidate": an invalidation on its way to one member.
	Kind      string
	Namespace string
	Member    string // who is asked; empty for a fill and for serve, which run here
	// Cause is, for a fill, the work of the read that started it, here or on another member, if the Tracer is
	// a Carrier. Others may have joined the fill, and it may outlive that read. The zero Trace: none, as for
	// what is loaded ahead, and by a BatchLoader.
	Cause Trace
}

// Trace identifies a piece of work among members: see codec.Trace. The zero Trace is none.
type Trace = codec.Trace

// A Carrier is a Tracer that follows work from one member to another: a get carries the trace that it belongs to,
// 25 bytes, and the owner's work is within it. A getmany and a put do not.
type Carrier interface {
	Tracer
	// Trace returns the work that ctx belongs to; false: none that others need to know of.
	Trace(ctx context.Context) (Trace, bool)
	// Within returns ctx as a part of work that another member does. t has come from there: it may be
	// anything.
	Within(ctx context.Context, t Trace) context.Context
}

// causeKey is the context key of a fill's Work.Cause.
type causeKey struct{}

// traceOf is the work that ctx belongs to, if it is followed.
func (c *Cache[V]) traceOf(ctx context.Context) (t Trace) {
	if c.carrier != nil {
		t, _ = c.carrier.Trace(ctx)
	}
	return t
}

// serveTraced follows what another member's question makes this one do; end is called with the answer.
func (c *Cache[V]) serveTraced(ctx context.Context, req *codec.Request) (_ context.Context, end func(resp *codec.Response)) {
	if c.carrier == nil || req.Flags&codec.FlagTrace == 0 || req.Kind != codec.KindGet {
		return ctx, func(*codec.Response) {}
	}
	ctx, over := c.carrier.Start(c.carrier.Within(ctx, req.Trace), Work{Kind: "serve", Namespace: c.cfg.Namespace})
	return ctx, func(resp *codec.Response) { over(answerError(nil, resp)) }
}

// A Tracer follows the work that makes a read wait, for distributed tracing; the module
// tier/oteltier has one for OpenTelemetry. Near hits and hits of this node's own keys are not
// work. Keys are not told. A Tracer is called concurrently, and must not block.
type Tracer interface {
	// Start is called when work begins. The work goes on with the returned context, and end is
	// called once when it is over: err is nil if it brought an answer, also "not found".
	//
	// A get's ctx is its caller's, or of one of several callers who share it. A fill serves
	// callers on many nodes and runs detached from all: its ctx has nothing of theirs. Nor has that of an
	// invalidate, since what several callers started goes to a member together.
	Start(ctx context.Context, w Work) (_ context.Context, end func(err error))
}

// watched returns cfg with its loader labelled for profiles and, if there is a Tracer, traced,
// and its cluster traced.
func (cfg Config[V]) watched() Config[V] {
	run := labelled(cfg.Namespace, cfg.Tracer)
	load, batch := cfg.Loader, cfg.BatchLoader
	cfg.Loader = func(ctx context.Context, fill *Fill[V]) (v V, err error) {
		err = run(ctx, func(ctx context.Context) (err error) {
			v, err = load(ctx, fill)
			return err
		})
		return v, err
	}
	if batch != nil {
		cfg.BatchLoader = func(ctx context.Context, fills []*Fill[V]) error {
			return run(ctx, func(ctx context.Context) error { return batch(ctx, fills) })
		}
	}
	if cfg.Tracer != nil && cfg.Cluster != nil {
		carrier, _ := cfg.Tracer.(Carrier)
		cfg.Cluster = tracedCluster{cfg.Cluster, cfg.Tracer, carrier}
	}
	return cfg
}

// labelled makes a loader's goroutine show up in profiles as what it is, and traces it.
func labelled(namespace string, tracer Tracer) func(ctx context.Context, load func(context.Context) error) error {
	labels := pprof.Labels("weir_namespace", namespace, "weir_phase", "load")
	return func(ctx context.Context, load func(context.Context) error) (err error) {
		pprof.Do(ctx, labels, func(ctx context.Context) {
			if tracer != nil {
				var end func(error)
				why, _ := ctx.Value(causeKey{}).(Trace)
				ctx, end = tracer.Start(ctx, Work{Kind: "fill", Namespace: namespace, Cause: why})
				err = ErrGoexit // or a panic: what stands if the loader does not return
				defer func() {
					if errors.Is(err, ErrNotFound) {
						end(nil)
						return
					}
					end(err)
				}()
			}
			err = load(ctx)
		})
		return err
	}
}

// tracedCluster traces the questions to other members.
type tracedCluster struct {
	Cluster
	tracer  Tracer
	carrier Carrier // nil: the tracer is none
}

// Bypassed is the Cluster's own; who does not tell hears from all.
func (t tracedCluster) Bypassed(name string) bool {
	b, ok := t.Cluster.(bypasser)
	return ok && b.Bypassed(name)
}

// Lost is the Cluster's own; who does not tell counts every member out of sight as lost.
func (t tracedCluster) Lost(name string) bool {
	l, ok := t.Cluster.(loser)
	return !ok || l.Lost(name)
}

// Call implements Cluster.
func (t tracedCluster) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	kind := workKind(req.Kind)
	if kind == "" {
		return t.Cluster.Call(ctx, to, req, resp)
	}
	ctx, end := t.tracer.Start(ctx, Work{Kind: kind, Namespace: string(req.Namespace), Member: to.Name})
	if t.carrier != nil && req.Kind == codec.KindGet {
		req.Flags &^= codec.FlagTrace
		if trace, ok := t.carrier.Trace(ctx); ok {
			req.Flags |= codec.FlagTrace
			req.Trace = trace
		}
	}
	err := t.Cluster.Call(ctx, to, req, resp)
	end(answerError(err, resp))
	return err
}

// workKind is the Work.Kind of a request; empty: no caller waits for it.
func workKind(k codec.Kind) string {
	switch k {
	case codec.KindGet:
		return "get"
	case codec.KindGetMany:
		return "getmany"
	case codec.KindPut:
		return "put"
	case codec.KindInvalidate:
		return "invalidate"
	}
	return ""
}

// answerError is what a tracer is told of an answer; nil: it is one.
func answerError(err error, resp *codec.Response) error {
	if err != nil {
		return err
	}
	switch resp.Status {
	case codec.StatusValue, codec.StatusNotFound, codec.StatusDone, codec.StatusMoved, codec.StatusMany:
		return nil
	}
	return fmt.Errorf("weir: status %d: %s", resp.Status, resp.Text)
}
