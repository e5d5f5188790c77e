//! One span, from its beginning until it is handed to the exporter.

use std::time::{Instant, SystemTime};

use crate::{context::SpanContext, export::Exporter};

/// What an attribute says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A word.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// What a span is to the call that it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Internal,
    Server,
}

/// A span that has ended.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub context: SpanContext,
    pub parent: Option<u64>,
    pub name: String,
    pub kind: Kind,
    pub begin: SystemTime,
    pub end: SystemTime,
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it is a fault; none: it is none.
    pub fault: Option<String>,
}

/// A span that has not ended. Dropped before [`Open::end`], it was given up, and says so.
#[derive(Debug)]
pub(crate) struct Open {
    exporter: Exporter,
    began: Instant,
    span: Option<Span>,
}

impl Open {
    pub fn begin(
        exporter: Exporter,
        context: SpanContext,
        parent: Option<u64>,
        name: String,
        kind: Kind,
    ) -> Self {
        let now = SystemTime::now();
        let span =
            Span { context, parent, name, kind, begin: now, end: now, attributes: Vec::new(), fault: None };
        Self { exporter, began: Instant::now(), span: context.sampled.then_some(span) }
    }

    /// Says more of it; nothing is worked out for one that is not exported.
    pub fn describe(&mut self, attributes: impl FnOnce() -> Vec<(&'static str, Value)>) {
        if let Some(span) = &mut self.span {
            span.attributes.extend(attributes());
        }
    }

    /// It has ended, with a fault or none.
    pub fn end(mut self, fault: Option<String>) {
        self.finish(fault);
    }

    fn finish(&mut self, fault: Option<String>) {
        if let Some(mut span) = self.span.take() {
            // A clock that is set meanwhile makes no span end before it began.
            span.end = span.begin + self.began.elapsed();
            span.fault = fault;
            self.exporter.take(span);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.finish(Some("given up".to_owned()));
    }
}
