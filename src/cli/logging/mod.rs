//! The output of log lines and spans: text or JSON on stderr, filtered by `BELLHOP_LOG`; and, with
//! the feature `otlp`, spans to an OpenTelemetry collector.

mod lines;

use std::io;

use anstream::{AutoStream, ColorChoice};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::{Cli, Command};
use crate::config::LogFormat;

/// Ends what the log needs. Spans that are not exported by then are lost.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Logging {
    #[cfg(feature = "otlp")]
    spans: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl Cli {
    /// Starts the log, until what this answers is dropped.
    pub(super) fn start_logging(&self) -> Logging {
        let filter = EnvFilter::try_from_env("BELLHOP_LOG")
            .unwrap_or_else(|_| EnvFilter::new(self.default_log()));
        let has_colour = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(has_colour);
        let lines = match self.log_format() {
            LogFormat::Text => lines.fmt_fields(lines::fields()).boxed(),
            LogFormat::Json => lines.event_format(lines::Json).boxed(),
        };
        let registry = tracing_subscriber::registry().with(lines.with_filter(filter));
        #[cfg(feature = "otlp")]
        if let Some((spans, provider)) = matches!(self.command, Command::Serve(_))
            .then(otlp::spans)
            .flatten()
        {
            registry.with(spans).init();
            return Logging {
                spans: Some(provider),
            };
        }
        registry.init();
        Logging::default()
    }

    /// A service's lines may go to a collector; a tool's go to a person. A wrong configuration is
    /// reported when it is used.
    fn log_format(&self) -> LogFormat {
        match self.command {
            Command::Serve(_) => self
                .settings
                .load()
                .map_or(LogFormat::Text, |loaded| loaded.config.log.format),
            _ => LogFormat::Text,
        }
    }
}

#[cfg(feature = "otlp")]
impl Drop for Logging {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.spans.take().map(|spans| spans.shutdown()) {
            super::output::complain(format_args!("the last spans were not exported: {error}"));
        }
    }
}

#[cfg(feature = "otlp")]
mod otlp {
    use std::env;

    use opentelemetry::trace::TracerProvider;
    use opentelemetry_otlp::SpanExporter;
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::runtime::Tokio;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
    use tracing::{Level, Subscriber};
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::layer::Layer;
    use tracing_subscriber::registry::LookupSpan;

    /// Variables of the standard that name a collector: without one of them nothing is exported.
    const ENDPOINTS: [&str; 2] = [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ];

    /// Exports spans as the standard's variables say (`OTEL_EXPORTER_OTLP_*`, `OTEL_SERVICE_NAME`,
    /// `OTEL_TRACES_SAMPLER`).
    pub(super) fn spans<S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync>()
    -> Option<(impl Layer<S> + Send + Sync, SdkTracerProvider)> {
        if !ENDPOINTS.iter().any(|name| env::var_os(name).is_some()) {
            return None;
        }
        let exporter = match SpanExporter::builder().with_http().build() {
            Ok(exporter) => exporter,
            Err(error) => {
                crate::cli::output::complain(format_args!(
                    "no spans are exported: {error}; see {}",
                    ENDPOINTS[0]
                ));
                return None;
            }
        };
        let resource = Resource::builder();
        let is_named = env::var_os("OTEL_SERVICE_NAME").is_some();
        let resource = if is_named {
            resource
        } else {
            resource.with_service_name("bellhop")
        };
        let processor = BatchSpanProcessor::builder(exporter, Tokio).build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_span_processor(processor)
            .build();
        let ours = Targets::new().with_target("bellhop", Level::DEBUG);
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("bellhop"))
            .with_filter(ours);
        Some((layer, provider))
    }
}
