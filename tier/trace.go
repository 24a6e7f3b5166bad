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
	// Kind is "fill": one run of the loader; "get": a question to a key's owner; or
	// "invalidate": an invalidation on its way to one member.
	Kind      string
	Namespace string
	Member    string // who is asked; empty for a fill, which runs here
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
		cfg.Cluster = tracedCluster{cfg.Cluster, cfg.Tracer}
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
				ctx, end = tracer.Start(ctx, Work{Kind: "fill", Namespace: namespace})
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
	tracer Tracer
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
	kind := "get"
	if req.Kind == codec.KindInvalidate {
		kind = "invalidate"
	}
	ctx, end := t.tracer.Start(ctx, Work{Kind: kind, Namespace: string(req.Namespace), Member: to.Name})
	err := t.Cluster.Call(ctx, to, req, resp)
	end(answerError(err, resp))
	return err
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
