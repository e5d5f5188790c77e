//! Which span a call belongs to, as `traceparent` says it (W3C Trace Context, level 1).

use std::{fmt, str::FromStr};

use rand::Rng;
use thiserror::Error;

/// The name of the header.
pub(crate) const HEADER: &str = "traceparent";

/// A span of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    /// The trace's id; not 0.
    pub(crate) trace: u128,
    /// The span's; not 0.
    pub(crate) span: u64,
    /// Whether it is exported, by everybody whom it reaches.
    pub(crate) sampled: bool,
}

/// It is no `traceparent` that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no traceparent of the form 00-TRACE-SPAN-FLAGS, in lowercase hexadecimal")]
pub struct NoContext;

impl SpanContext {
    /// The first span of a new trace.
    pub(crate) fn root(sampled: bool) -> Self {
        Self { trace: rand::rng().random_range(1..=u128::MAX), span: new_span(), sampled }
    }

    /// A further span of the same trace.
    pub(crate) fn child(self) -> Self {
        Self { span: new_span(), ..self }
    }
}

fn new_span() -> u64 {
    rand::rng().random_range(1..=u64::MAX)
}

impl fmt::Display for SpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl FromStr for SpanContext {
    type Err = NoContext;

    fn from_str(text: &str) -> Result<Self, NoContext> {
        let hex = |part: &str, length: usize| {
            let right = part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            right.then(|| u128::from_str_radix(part, 16).ok()).flatten().ok_or(NoContext)
        };
        let mut parts = text.trim().split('-');
        let mut next = |length| hex(parts.next().unwrap_or_default(), length);
        let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        // Later versions may say more after these; 255 is forbidden.
        if version == 255 || (version == 0 && parts.next().is_some()) || trace == 0 || span == 0 {
            return Err(NoContext);
        }
        let span = u64::try_from(span).map_err(|_| NoContext)?;
        Ok(Self { trace, span, sampled: flags & 1 == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_it_is_read() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context: SpanContext = text.parse().unwrap();
        assert_eq!((context.to_string().as_str(), context.sampled), (text, true));
        let root = SpanContext::root(false);
        assert_eq!(root.to_string().parse(), Ok(root));
        let child = root.child();
        assert!(child.trace == root.trace && child.span != root.span && !child.sampled);
        // A later version may say more; flags that are not known are no fault.
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-what-ever";
        assert_eq!(later.parse::<SpanContext>().map(|context| context.trace), Ok(context.trace));
    }

    #[test]
    fn anything_else_is_refused() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for text in [
            String::new(),
            "00".into(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-1"),
            format!("00-{trace}-{span}-01-more"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-+{}-{span}-01", &trace[1..]),
            format!("00-é{}-{span}-01", &trace[2..]),
        ] {
            assert_eq!(text.parse::<SpanContext>(), Err(NoContext), "{text}");
        }
    }
}
