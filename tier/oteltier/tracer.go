// Package oteltier traces a tier.Cache with OpenTelemetry. It is a module of its own, so that the
// cache does not depend on OpenTelemetry:
//
//	tier.Config[Product]{ ..., Tracer: oteltier.New(otel.GetTracerProvider()) }
//
// A remote get is a client span within its caller's; a fill is a span that starts a trace of its own,
// since it serves callers on many nodes and runs on when they leave. Spans of clients that the
// loader uses are within the fill's. The context of a trace does not cross from one
// member to another yet: the owner's fill is not within the asker's get.
package oteltier

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/weircache/weir/tier"
)

// The attributes of the spans.
const (
	NamespaceKey = attribute.Key("weir.namespace") // the cache's name
	MemberKey    = attribute.Key("weir.member")    // who is asked
)

type tracer struct{ spans trace.Tracer }

// New returns a tier.Tracer that makes spans with the provider: "weir.fill", "weir.get" and
// "weir.invalidate". Safe for concurrent use, and for several caches.
func New(provider trace.TracerProvider) tier.Tracer {
	return tracer{provider.Tracer("github.com/weircache/weir/tier/oteltier")}
}

// Start implements tier.Tracer.
func (t tracer) Start(ctx context.Context, w tier.Work) (context.Context, func(error)) {
	attributes := []attribute.KeyValue{NamespaceKey.String(w.Namespace)}
	kind := trace.SpanKindInternal
	if w.Member != "" {
		attributes = append(attributes, MemberKey.String(w.Member))
		kind = trace.SpanKindClient
	}
	ctx, span := t.spans.Start(ctx, "weir."+w.Kind, trace.WithSpanKind(kind), trace.WithAttributes(attributes...))
	return ctx, func(err error) {
		if err != nil {
			span.RecordError(err)
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}
