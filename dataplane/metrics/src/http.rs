//! A small HTTP server for who scrapes: nobody may keep it busy, or make it hold much memory.

use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

/// Bytes of the longest request head; what is longer is refused.
const LONGEST_HEAD: usize = 8192;
/// Before going on after an error that may come again at once.
const BREATH: Duration = Duration::from_millis(100);
/// Told to one more than are served.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 44\r\nconnection: close\r\n\r\ntoo many clients at once; try again shortly\n";

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at once.
    pub connections: usize,
    /// How long a request's head may take to arrive.
    pub head: Duration,
    /// How long a connection may last: one request, its answer, and its way to the client.
    pub whole: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: 16, head: Duration::from_secs(5), whole: Duration::from_secs(25) }
    }
}

/// What a client wants; it has no body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The path, as it came.
    pub path: String,
    /// What follows the question mark, as it came.
    pub query: String,
    /// What the client takes, as it came; empty when it does not say.
    pub accept: String,
}

impl Question {
    /// The value of a parameter of the query, as it came.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
    }
}

/// What it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP's number.
    pub status: u16,
    /// What the body is.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Plain words, with a line's end.
    pub fn words(status: u16, text: &str) -> Self {
        let body = Bytes::from(format!("{}\n", text.trim_end()));
        Self { status, content_type: "text/plain; charset=utf-8", body }
    }
}

/// Connections that were turned away because there were as many as may be.
#[derive(Debug, Clone, Default)]
pub struct TurnedAway(Arc<AtomicU64>);

impl TurnedAway {
    /// How many.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Answers GET and HEAD until it is dropped; each connection is good for one request. What is under way then is cut off.
pub async fn serve<F, A>(listener: TcpListener, bounds: Bounds, turned_away: TurnedAway, answer: F) -> Infallible
where
    F: Fn(Question) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(bounds.connections));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Of this connection alone, or of descriptors that others will give back.
                Err(error) => {
                    warn!(%error, "accept a connection for metrics");
                    sleep(BREATH).await;
                    continue;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            turned_away.0.fetch_add(1, Ordering::Relaxed);
            // Whoever does not take it at once is not waited for.
            let _ = stream.try_write(TOO_MANY);
            continue;
        };
        let answer = answer.clone();
        connections.spawn(async move {
            if timeout(bounds.whole, converse(stream, bounds, answer)).await.is_err() {
                debug!("a client of metrics took too long");
            }
            drop(place);
        });
    }
}

async fn converse<F, A>(stream: TcpStream, bounds: Bounds, answer: F)
where
    F: Fn(Question) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let service = service_fn(move |request| respond(request, answer.clone()));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(LONGEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "a client of metrics");
    }
}

async fn respond<F, A>(request: Request<Incoming>, answer: F) -> Result<Response<Full<Bytes>>, Infallible>
where
    F: Fn(Question) -> A,
    A: Future<Output = Answer>,
{
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let answered = match get {
        true => {
            let accept = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
            let question = Question {
                path: request.uri().path().to_owned(),
                query: request.uri().query().unwrap_or_default().to_owned(),
                accept: accept.collect::<Vec<_>>().join(","),
            };
            answer(question).await
        }
        false => Answer::words(405, "only GET and HEAD are answered here"),
    };
    // hyper leaves the body out where HEAD was asked, and says how long it would be.
    let mut response = Response::new(Full::new(answered.body));
    *response.status_mut() = StatusCode::from_u16(answered.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answered.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    if !get {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    Ok(response)
}
