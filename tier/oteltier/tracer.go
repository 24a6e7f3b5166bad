// Package oteltier traces a tier.Cache with OpenTelemetry. It is a module of its own, so that the
// cache does not depend on OpenTelemetry:
//
//	tier.Config[Product]{ ..., Tracer: oteltier.New(otel.GetTracerProvider()) }
//
// A remote get is a client span within its caller's span. If the key's owner has to wait for an answer, it has a server
// span within that get, because the trace context crosses the wire. A fill belongs to the read that started it, on whichever
// member that read arrived. It serves later callers of the key and may outlive that read. A fill that no read waits for
// starts a trace. Spans of clients that the loader uses are children of the fill's span.
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
	MemberKey    = attribute.Key("weir.member")    // the member that is asked
)

type tracer struct{ spans trace.Tracer }

var _ tier.Carrier = tracer{}

// New returns a tier.Tracer, and tier.Carrier, that makes spans with the provider, named "weir." and
// tier.Work's Kind. Safe for concurrent use, and for several caches.
func New(provider trace.TracerProvider) tier.Tracer {
	return tracer{provider.Tracer("github.com/weircache/weir/tier/oteltier")}
}

// Start implements tier.Tracer.
func (t tracer) Start(ctx context.Context, w tier.Work) (context.Context, func(error)) {
	attributes := []attribute.KeyValue{NamespaceKey.String(w.Namespace)}
	kind := trace.SpanKindInternal
	switch {
	case w.Member != "":
		attributes = append(attributes, MemberKey.String(w.Member))
		kind = trace.SpanKindClient
	case w.Kind == "serve":
		kind = trace.SpanKindServer
	}
	if w.Cause != (tier.Trace{}) {
		ctx = t.Within(ctx, w.Cause)
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

// Trace implements tier.Carrier.
func (t tracer) Trace(ctx context.Context) (w tier.Trace, ok bool) {
	s := trace.SpanContextFromContext(ctx)
	if !s.IsValid() {
		return w, false
	}
	traceID, spanID := s.TraceID(), s.SpanID()
	copy(w[:16], traceID[:])
	copy(w[16:24], spanID[:])
	w[24] = byte(s.TraceFlags())
	return w, true
}

// Within implements tier.Carrier. An invalid trace leaves ctx unchanged.
func (t tracer) Within(ctx context.Context, w tier.Trace) context.Context {
	s := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID(w[:16]), SpanID: trace.SpanID(w[16:24]), TraceFlags: trace.TraceFlags(w[24]), Remote: true,
	})
	if !s.IsValid() {
		return ctx
	}
	return trace.ContextWithRemoteSpanContext(ctx, s)
}
