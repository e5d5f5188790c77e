//! HTTP over unix sockets, both ways.

use std::{convert::Infallible, future::Future, path::Path, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HOST, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, warn};

/// What Docker asks for as the type of answers of plugins.
const PLUGIN_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";
/// Bytes of the largest request; Docker's are a few hundred.
const LARGEST_REQUEST: usize = 1 << 20;
/// Bytes of the largest answer of an engine: a list of thousands of containers.
const LARGEST_ANSWER: usize = 64 << 20;

/// Why an engine gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens.
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    /// The connection broke, or what came is not HTTP.
    #[error("the connection broke")]
    Http(#[from] hyper::Error),
    /// The request is none.
    #[error("the request is malformed")]
    Request(#[from] hyper::http::Error),
    /// Too long, or cut off.
    #[error("the answer did not arrive whole: {0}")]
    Body(String),
    /// It is not what was expected.
    #[error("the answer is not understood")]
    Json(#[from] serde_json::Error),
    /// It did not come in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// It was a refusal.
    #[error("{message} (status {code})")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// In the engine's words.
        message: String,
    },
}

/// Asks `path` of whoever listens on the socket and gives back the answer's JSON; `null` when it is empty.
pub async fn call(socket: &Path, method: &str, path: &str, within: Duration) -> Result<Value, CallError> {
    let asked = tokio::time::timeout(within, exchange(socket, method, path)).await;
    asked.map_err(|_| CallError::Silent(within))?
}

async fn exchange(socket: &Path, method: &str, path: &str) -> Result<Value, CallError> {
    let stream = UnixStream::connect(socket).await.map_err(CallError::Connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driven = tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header(HOST, "docker");
    let response = sender.send_request(request.body(Full::<Bytes>::default())?).await?;
    let code = response.status();
    let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
    driven.abort();
    let body = body.map_err(|e| CallError::Body(e.to_string()))?.to_bytes();
    if !code.is_success() {
        let said: Option<Value> = serde_json::from_slice(&body).ok();
        let said = said.as_ref().and_then(|v| v.get("message")).and_then(Value::as_str);
        let message = said.map_or_else(|| String::from_utf8_lossy(&body).trim().to_owned(), str::to_owned);
        return Err(CallError::Refused { code: code.as_u16(), message });
    }
    match body.is_empty() {
        true => Ok(Value::Null),
        false => Ok(serde_json::from_slice(&body)?),
    }
}

/// Answers the requests of every connection with what `answer` makes of path and body, until the listener fails.
pub async fn serve<F, A>(listener: UnixListener, answer: F) -> std::io::Result<()>
where
    F: Fn(String, Bytes) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Value> + Send + 'static,
{
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Of this connection alone, or of descriptors that others will give back.
            Err(error) => {
                warn!(%error, "accept a connection of Docker");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let answer = answer.clone();
        let service = service_fn(move |request| respond(request, answer.clone()));
        tokio::spawn(async move {
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                debug!(%error, "a connection of Docker broke");
            }
        });
    }
}

async fn respond<F, A>(request: Request<Incoming>, answer: F) -> Result<Response<Full<Bytes>>, Infallible>
where
    F: Fn(String, Bytes) -> A,
    A: Future<Output = Value> + Send + 'static,
{
    let path = request.uri().path().to_owned();
    let body = Limited::new(request.into_body(), LARGEST_REQUEST).collect().await;
    let (code, value) = match body {
        // In a task of its own: an engine that hangs up leaves nothing half done.
        Ok(body) => match tokio::spawn(answer(path, body.to_bytes())).await {
            Ok(value) => (StatusCode::OK, value),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, serde_json::json!({"Err": error.to_string()})),
        },
        Err(error) => (StatusCode::BAD_REQUEST, serde_json::json!({"Err": error.to_string()})),
    };
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PLUGIN_TYPE));
    Ok(response)
}
