//! The span that a piece of work belongs to: it goes with the work from function to function, and with calls to other
//! processes.

use std::{fmt::Display, future::Future};

use tonic::{
    Request, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
    service::Interceptor,
};

use crate::{
    context::{HEADER, SpanContext},
    export::Exporter,
    span::{Kind, Open},
};

/// A span under way.
#[derive(Debug, Clone)]
pub(crate) struct Current {
    pub exporter: Exporter,
    pub context: SpanContext,
}

tokio::task_local! {
    static CURRENT: Current;
}

/// The span that the calling work belongs to.
pub fn current() -> Option<SpanContext> {
    CURRENT.try_with(|current| current.context).ok()
}

/// Work that belongs to a span.
pub(crate) async fn scope<F: Future>(current: Current, work: F) -> F::Output {
    CURRENT.scope(current, work).await
}

/// `work` as a span of its own, if it belongs to one.
pub async fn within<T, E: Display>(
    name: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let Ok(Current { exporter, context }) = CURRENT.try_with(Clone::clone) else { return work.await };
    let own = context.child();
    let open = Open::begin(exporter.clone(), own, Some(context.span), name.to_owned(), Kind::Internal);
    let done = scope(Current { exporter, context: own }, work).await;
    open.end(done.as_ref().err().map(ToString::to_string));
    done
}

/// `work` for a task of its own, still of the span that the caller's work belongs to.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let current = CURRENT.try_with(Clone::clone).ok();
    async move {
        match current {
            Some(current) => scope(current, work).await,
            None => work.await,
        }
    }
}

/// A request for another process, which is told the span.
pub fn pass_on<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(context) = current() {
        tell(request.metadata_mut(), context);
    }
    request
}

fn tell(metadata: &mut MetadataMap, context: SpanContext) {
    if let Ok(value) = AsciiMetadataValue::try_from(context.to_string()) {
        metadata.insert(HEADER, value);
    }
}

/// Tells the same span with every call of a client: that of a program that was started within one.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassOn(Option<SpanContext>);

impl PassOn {
    /// The span that the variable `TRACEPARENT` names, as programs tell their children; none, or one that cannot be read,
    /// tells nothing.
    pub fn of_environment() -> Self {
        Self(std::env::var("TRACEPARENT").ok().and_then(|text| text.parse().ok()))
    }
}

impl Interceptor for PassOn {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(context) = self.0 {
            tell(request.metadata_mut(), context);
        }
        Ok(request)
    }
}
