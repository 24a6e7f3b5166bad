package tier

import (
	"context"
	"errors"
	"fmt"
	"runtime/pprof"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/owner"
)

// Work describes a piece of work to a Tracer.
type Work struct {
	// Kind is one of:
	//
	//   - "fill": one run of the loader.
	//   - "get", "getmany", "put": a request to the owner of one or several keys.
	//   - "serve": a get of another member whose tracer is a Carrier, on this node, if it has to wait.
	//   - "invalidate": an invalidation sent to one member.
	Kind      string
	Namespace string
	Member    string // the member that is asked; empty for fill and serve, which run here
	// Cause, for a fill, is the work of the read that started it, here or on another member, if the Tracer is a
	// Carrier. Other reads may have joined the fill, and it may outlive the first one. The zero Trace means none, as
	// for refreshes ahead and for a BatchLoader.
	Cause Trace
}

// Trace identifies a piece of work among members: see codec.Trace. The zero Trace means none.
type Trace = codec.Trace

// A Carrier is a Tracer that follows work from one member to another. A get carries the trace that it belongs to, 25
// bytes, and the owner's work belongs to that trace. A getmany and a put do not carry a trace.
type Carrier interface {
	Tracer
	// Trace returns the work that ctx belongs to. It returns false if other members need not know of any.
	Trace(ctx context.Context) (Trace, bool)
	// Within returns ctx as part of work t of another member. t comes from that member and may be anything.
	Within(ctx context.Context, t Trace) context.Context
}

// follows is a Carrier as the owner of a key needs it.
type follows struct {
	Carrier
	namespace string
}

func (t follows) Trace(ctx context.Context) Trace {
	out, _ := t.Carrier.Trace(ctx)
	return out
}

// Within returns ctx as that of a fill that t has caused.
func (t follows) Within(ctx context.Context, of Trace) context.Context {
	return context.WithValue(ctx, causeKey{}, of)
}

func (t follows) Serve(ctx context.Context, req *codec.Request) (context.Context, func(*codec.Response)) {
	ctx, over := t.Start(t.Carrier.Within(ctx, req.Trace), Work{Kind: "serve", Namespace: t.namespace})
	return ctx, func(resp *codec.Response) { over(answerError(nil, resp)) }
}

// causeKey is the context key of a fill's Work.Cause.
type causeKey struct{}

// A Tracer follows the work that makes a read wait, for distributed tracing. The module tier/oteltier has one for
// OpenTelemetry. Near hits and hits of this node's own keys do not count as work. A Tracer does not learn keys. It is
// called concurrently and must not block.
type Tracer interface {
	// Start is called when work begins. The work continues with the returned context. end is called once when the
	// work is over; err is nil if it brought an answer, including "not found".
	//
	// The ctx of a get belongs to its caller, or to one of several callers that share the get. A fill serves callers
	// on many nodes and runs detached from all of them, so its ctx carries nothing of theirs. The same holds for an
	// invalidate, because what several callers started goes to a member together.
	Start(ctx context.Context, w Work) (_ context.Context, end func(err error))
}

// watched returns cfg with a loader that is labelled for profiles. If there is a Tracer, it traces the loader and the
// cluster.
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

// labelled labels a loader's goroutine for profiles, and traces it.
func labelled(namespace string, tracer Tracer) func(ctx context.Context, load func(context.Context) error) error {
	labels := pprof.Labels("weir_namespace", namespace, "weir_phase", "load")
	return func(ctx context.Context, load func(context.Context) error) (err error) {
		pprof.Do(ctx, labels, func(ctx context.Context) {
			if tracer != nil {
				var end func(error)
				why, _ := ctx.Value(causeKey{}).(Trace)
				ctx, end = tracer.Start(ctx, Work{Kind: "fill", Namespace: namespace, Cause: why})
				err = ErrGoexit // or a panic: the result if the loader does not return
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

// tracedCluster traces the requests to other members.
type tracedCluster struct {
	Cluster
	tracer  Tracer
	carrier Carrier // nil: the tracer is not a Carrier
}

// Bypassed forwards to the Cluster. A Cluster without that method hears from all members.
func (t tracedCluster) Bypassed(name string) bool {
	b, ok := t.Cluster.(owner.Bypasser)
	return ok && b.Bypassed(name)
}

// Lost forwards to the Cluster. A Cluster without that method counts every member out of sight as lost.
func (t tracedCluster) Lost(name string) bool {
	l, ok := t.Cluster.(owner.LossReporter)
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

// workKind returns the Work.Kind of a request; empty if no caller waits for it.
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

// answerError returns the error to report to a tracer; nil if resp is an answer.
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
