package server

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/version"
)

const (
	envEndpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	// traceFlush is how long the end of a process waits for its last spans to
	// be sent.
	traceFlush = 5 * time.Second
)

// startTracing makes p record spans if the standard environment variable names
// where to send them; all others of OpenTelemetry (headers, sampler, resource,
// certificate) hold too. Stop sends what is left; it is never nil.
func (p *Process) startTracing(ctx context.Context, role string) (stop func(), err error) {
	if p.Getenv == nil || p.Getenv(envEndpoint) == "" {
		return func() {}, nil
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithTimeout(traceFlush))
	if err != nil {
		return func() {}, freshet.Errorf(freshet.KindInvalid, "start tracing", "", "%s: %w", envEndpoint, err)
	}
	res, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "freshet-"+role), attribute.String("service.version", version.Get().Version),
	), resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		return func() {}, freshet.Errorf(freshet.KindInvalid, "start tracing", "", "resource: %w", err)
	}
	tp := trace.NewTracerProvider(trace.WithResource(res), trace.WithBatcher(&spanSender{SpanExporter: exporter, log: p.Log}))
	p.tracer = tp
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceFlush)
		defer cancel()
		if err := tp.Shutdown(ctx); err != nil {
			p.Log.Warn("the last spans were not sent", "error", err)
		}
	}, nil
}

// spanSender tells our log of spans that could not be sent, and not the process's
// standard error as the SDK would. Spans are lost then; nothing else is.
type spanSender struct {
	trace.SpanExporter
	log *slog.Logger
}

// ExportSpans implements trace.SpanExporter.
func (s *spanSender) ExportSpans(ctx context.Context, spans []trace.ReadOnlySpan) error {
	if err := s.SpanExporter.ExportSpans(ctx, spans); err != nil {
		s.log.WarnContext(ctx, "spans were not sent", "count", len(spans), "error", err)
	}
	return nil
}
