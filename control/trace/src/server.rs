//! A span for each call that is served.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tonic::{
    Code, Status,
    body::Body,
    codegen::http::{Extensions, HeaderMap, Request, Response},
};
use tower::{Layer, Service};

use crate::{
    carry::{Current, scope},
    context::{HEADER, SpanContext},
    export::Exporter,
    span::{Kind, Open, Value},
};

/// Who makes a call.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// Whether its word counts on which trace the call is of, and whether that is exported.
    pub trusted: bool,
    /// What the span says of it.
    pub attributes: Vec<(&'static str, Value)>,
}

/// Gives each call a span. It goes outside of what checks calls, so that those refused have one too.
#[derive(Debug, Clone)]
pub struct TraceLayer {
    exporter: Option<Exporter>,
    caller: fn(&Extensions) -> Caller,
    quiet: &'static [&'static str],
}

impl TraceLayer {
    /// For the process's exporter, if it has one by now. `caller` says of a request's extensions who makes it; methods of
    /// `quiet`, such as `/mesh.v1.Raft/Call`, begin no traces.
    pub fn new(caller: fn(&Extensions) -> Caller, quiet: &'static [&'static str]) -> Self {
        Self { exporter: Exporter::of_process(), caller, quiet }
    }

    /// The same for this exporter.
    pub fn by(self, exporter: Exporter) -> Self {
        Self { exporter: Some(exporter), ..self }
    }
}

impl<S> Layer<S> for TraceLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced { layer: self.clone(), inner }
    }
}

/// A service whose calls have spans.
#[derive(Debug, Clone)]
pub struct Traced<S> {
    layer: TraceLayer,
    inner: S,
}

impl<S, B> Service<Request<B>> for Traced<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let begun = self.layer.begin(&request);
        let answer = self.inner.call(request);
        let Some((open, current)) = begun else { return Box::pin(answer) };
        Box::pin(async move {
            let answer = scope(current, answer).await;
            end(open, answer.as_ref().ok().map(Response::headers));
            answer
        })
    }
}

impl TraceLayer {
    fn begin<B>(&self, request: &Request<B>) -> Option<(Open, Current)> {
        let exporter = self.exporter.clone()?;
        let path = request.uri().path();
        let told = parent(request.headers());
        if told.is_none() && self.quiet.contains(&path) {
            return None;
        }
        let caller = (self.caller)(request.extensions());
        let parent = told.filter(|_| caller.trusted);
        let context = parent.map_or_else(|| SpanContext::root(exporter.samples()), SpanContext::child);
        let name = path.trim_start_matches('/').to_owned();
        let mut open =
            Open::begin(exporter.clone(), context, parent.map(|parent| parent.span), name, Kind::Server);
        open.describe(|| {
            let mut said = caller.attributes;
            said.push(("rpc.system", "grpc".into()));
            if let Some((service, method)) = path.trim_start_matches('/').split_once('/') {
                said.extend([("rpc.service", service.into()), ("rpc.method", method.into())]);
            }
            said
        });
        Some((open, Current { exporter, context }))
    }
}

fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    headers.get(HEADER)?.to_str().ok()?.parse().ok()
}

/// Ends the span with the status that the headers tell; one that comes only after a body is that of a stream which has
/// begun well, or of a call that is done.
fn end(mut open: Open, headers: Option<&HeaderMap>) {
    let Some(headers) = headers else { return open.end(Some("the service failed".to_owned())) };
    let status = Status::from_header_map(headers);
    let code = status.as_ref().map_or(Code::Ok, Status::code);
    let text = status.map(|status| status.message().to_owned()).unwrap_or_default();
    open.describe(|| {
        let mut said = vec![("rpc.grpc.status_code", i64::from(code as i32).into())];
        if code != Code::Ok {
            said.push(("mesh.refusal", text.as_str().into()));
        }
        said
    });
    // A refusal is the caller's fault, and no span of a server is red for it (OpenTelemetry's conventions for gRPC).
    let ours = matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    );
    open.end(ours.then_some(text));
}
