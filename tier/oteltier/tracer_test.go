package oteltier

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// Two nodes: a read on one of a key that the other owns is a get within the caller's span there, and within that
// what the owner does for it, and the fill.
func TestSpans(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(spans))
	quiet := slog.New(slog.DiscardHandler)
	var caches []*tier.Cache[string]
	var nodes []*peer.Node
	var join []string
	for _, name := range []string{"a", "b"} {
		n, err := peer.Start(t.Context(), peer.Config{Name: name, Join: join, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		join, nodes = []string{n.Addr()}, append(nodes, n)
		c, err := tier.New(tier.Config[string]{
			Cluster: n, Namespace: "p", Freshness: tier.Freshness{TTL: time.Minute}, Tracer: New(provider),
			Loader: func(ctx context.Context, f *tier.Fill[string]) (string, error) {
				_, s := provider.Tracer("db").Start(ctx, "SELECT")
				defer s.End()
				if f.Key == "down" {
					return "", errors.New("down")
				}
				return "v", nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		caches = append(caches, c)
	}
	for nodes[0].View().Len() < 2 {
		<-nodes[0].ViewChanged()
	}
	key := "k"
	for nodes[0].View().Owner(key).Name != "b" {
		key += "k"
	}
	ctx, caller := provider.Tracer("caller").Start(t.Context(), "request")
	if _, err := caches[0].Get(ctx, key); err != nil {
		t.Fatal(err)
	}
	caller.End()
	if err := caches[0].Invalidate(ctx, key); err != nil {
		t.Fatal(err)
	}
	by := make(map[string]tracetest.SpanStub)
	for _, s := range spans.GetSpans() {
		by[s.Name+" "+s.Status.Description] = s
	}
	get, fill, query := by["weir.get "], by["weir.fill "], by["SELECT "]
	if get.Parent.SpanID() != caller.SpanContext().SpanID() || get.SpanKind != trace.SpanKindClient {
		t.Errorf("get: %+v", get)
	}
	serve := by["weir.serve "]
	if serve.Parent.SpanID() != get.SpanContext.SpanID() || !serve.Parent.IsRemote() || serve.SpanKind != trace.SpanKindServer {
		t.Errorf("serve: %+v", serve)
	}
	if fill.Parent.SpanID() != serve.SpanContext.SpanID() || query.Parent.SpanID() != fill.SpanContext.SpanID() {
		t.Errorf("fill: %+v", fill)
	}
	for _, s := range []tracetest.SpanStub{get, serve, fill, query} {
		if s.SpanContext.TraceID() != caller.SpanContext().TraceID() {
			t.Errorf("%s is of another trace than its caller", s.Name)
		}
	}
	if s := by["weir.invalidate "]; !s.SpanContext.IsValid() || s.Parent.IsValid() {
		t.Errorf("invalidate: %+v", s)
	}
	has := map[string]bool{}
	for _, a := range get.Attributes {
		has[string(a.Key)+"="+a.Value.AsString()] = true
	}
	if !has["weir.namespace=p"] || !has["weir.member=b"] || len(has) != 2 {
		t.Errorf("attributes: %v", get.Attributes)
	}
	_, err := caches[0].Get(t.Context(), "down")
	failed := false
	for _, s := range spans.GetSpans() {
		failed = failed || s.Status.Code == codes.Error
	}
	if err == nil || !failed {
		t.Errorf("%v, a failed span: %v", err, failed)
	}
}

func TestWithin(t *testing.T) {
	tr := tracer{}
	if _, ok := tr.Trace(t.Context()); ok {
		t.Error("a trace from nowhere")
	}
	for _, w := range []tier.Trace{{}, {0: 1}, {16: 1}} { // what a member may send
		if ctx := tr.Within(t.Context(), w); ctx != t.Context() {
			t.Errorf("%v: %v", w, trace.SpanContextFromContext(ctx))
		}
	}
	want := tier.Trace{0: 1, 15: 2, 16: 3, 23: 4, 24: 1}
	if got, ok := tr.Trace(tr.Within(t.Context(), want)); !ok || got != want {
		t.Errorf("%v, %v", got, ok)
	}
}
