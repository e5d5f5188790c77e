//! Spans of meshd's calls: who asked whom, how long it took and what came of it, passed on from process to process by the
//! W3C's `traceparent`, and exported to a collector by OTLP over HTTP.
//!
//! [`Exporter::start`] once per process turns it on; until then nothing here costs more than a look at an empty cell. Who
//! serves calls puts a [`TraceLayer`] before its services; who makes them passes their messages through [`pass_on`]. Work
//! in between that is worth a span of its own is [`within`] one; work in a task of its own is [`carried`] there.

#![forbid(unsafe_code)]

mod carry;
mod context;
mod endpoint;
mod export;
mod otlp;
mod server;
mod span;

pub use carry::{PassOn, carried, current, pass_on, within};
pub use context::{NoContext, SpanContext};
pub use endpoint::{Endpoint, EndpointError};
pub use export::{Counts, Exporter, Options};
pub use server::{Caller, TraceLayer, Traced};
pub use span::Value;

#[cfg(test)]
mod tests;
