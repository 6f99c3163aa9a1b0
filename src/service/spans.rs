//! Spans of what is done with reminders, in the trace that their publisher began.
//!
//! With the feature `otlp`, and a collector to send them to, they are exported, and what is passed
//! on names them. Without, they cost nothing, and what came is passed on as it came.

use tracing::Span;

use crate::token::InstanceName;
use crate::trace::TraceParent;

/// Maximum number of traces in one request.
const MAX_TRACES: usize = 32;

/// Returns the span in which a set is read and split.
pub fn take_in(subject: &str, came: Option<&TraceParent>) -> Span {
    let span = tracing::debug_span!(
        "take in",
        otel.kind = "consumer",
        messaging.destination.name = subject
    );
    link(&span, came.as_slice());
    span
}

/// A request to an instance, with so many reminders.
pub fn deliver(instance: &InstanceName, reminders: usize, came: &[TraceParent]) -> Span {
    let instance = instance.as_str();
    let span = tracing::debug_span!("deliver", otel.kind = "client", instance, reminders);
    link(&span, &came.iter().collect::<Vec<_>>());
    span
}

/// The context for the next step: the span or, if there is none, the incoming one.
pub fn passed_on(span: &Span, came: Option<TraceParent>) -> Option<TraceParent> {
    own(span).or(came)
}

/// The traces of all these, each once.
pub fn distinct<'a>(all: impl Iterator<Item = &'a TraceParent>) -> Vec<TraceParent> {
    let mut distinct: Vec<TraceParent> = Vec::new();
    for one in all {
        if distinct.len() < MAX_TRACES && !distinct.contains(one) {
            distinct.push(one.clone());
        }
    }
    distinct
}

/// The span goes on where the first of these ended, and links the others.
#[cfg(feature = "otlp")]
fn link(span: &Span, came: &[&TraceParent]) {
    use opentelemetry::trace::TraceContextExt;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    let contexts = came.iter().map(|one| remote(one));
    for (place, context) in contexts.enumerate() {
        if place == 0 {
            // It fails where nothing is exported.
            let _ =
                span.set_parent(opentelemetry::Context::new().with_remote_span_context(context));
        } else {
            span.add_link(context);
        }
    }
}

#[cfg(not(feature = "otlp"))]
fn link(_: &Span, _: &[&TraceParent]) {}

#[cfg(feature = "otlp")]
fn own(span: &Span) -> Option<TraceParent> {
    use opentelemetry::trace::TraceContextExt;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    let context = span.context();
    let own = context.span().span_context().clone();
    let text = format!(
        "00-{}-{}-{:02x}",
        own.trace_id(),
        own.span_id(),
        own.trace_flags()
    );
    text.parse().ok() // Of a span that is not recorded the ids are 0, which is not a traceparent.
}

#[cfg(not(feature = "otlp"))]
fn own(_: &Span) -> Option<TraceParent> {
    None
}

#[cfg(feature = "otlp")]
fn remote(parent: &TraceParent) -> opentelemetry::trace::SpanContext {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

    let mut parts = parent.as_str().split('-').skip(1);
    let mut next = || parts.next().unwrap_or_default();
    let trace = TraceId::from_hex(next()).unwrap_or(TraceId::INVALID);
    let span = SpanId::from_hex(next()).unwrap_or(SpanId::INVALID);
    let flags = TraceFlags::new(u8::from_str_radix(next(), 16).unwrap_or(0));
    SpanContext::new(trace, span, flags, true, TraceState::NONE)
}
