//! From ended spans to a collector, beside the work: nobody waits for it, and what it cannot take is dropped and counted.

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode,
    header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use prost::Message;
use rand::Rng;
use thiserror::Error;
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::{
    endpoint::Endpoint,
    otlp,
    span::{Span, Value},
};

/// Spans that wait at most; further ones are dropped.
const WAITING: usize = 2_048;
/// Spans of one message.
const BATCH: usize = 512;
/// How long spans wait for others to go with.
const GATHER: Duration = Duration::from_secs(2);
/// How long a collector may take, its connection included.
const ANSWER: Duration = Duration::from_secs(10);
/// Pauses before a message is tried again.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How often it is tried before its spans are dropped.
const TRIES: u32 = 5;
/// How long the last spans may take when the process ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// What is read of a collector's answer.
const LARGEST_ANSWER: usize = 64 << 10;

/// The process's exporter.
static OF_PROCESS: OnceLock<Exporter> = OnceLock::new();

/// What describes the process, asked for with each message.
type Describe = Box<dyn Fn() -> Vec<(&'static str, Value)> + Send + Sync>;

/// How spans are exported.
pub struct Options {
    /// To where.
    pub endpoint: Endpoint,
    /// How many of a hundred traces that begin here.
    pub percent: u8,
    /// What describes the process: `service.name` and more.
    pub resource: Describe,
}

/// What became of spans since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken by the collector.
    pub exported: u64,
    /// Dropped: too many waited, or the collector did not take them.
    pub dropped: u64,
    /// Why it did not take the last message; none if it did.
    pub trouble: Option<String>,
}

/// Hands spans to a collector. Clones are handles on the same one.
#[derive(Clone)]
pub struct Exporter {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    percent: u8,
    spans: mpsc::Sender<Order>,
    exported: AtomicU64,
    dropped: AtomicU64,
    trouble: Mutex<Option<String>>,
}

enum Order {
    Span(Span),
    /// Sends what waits, and says so.
    Flush(oneshot::Sender<()>),
}

/// Why a message was not taken.
#[derive(Debug, Error)]
enum Refused {
    /// It may be another time.
    #[error("{0}")]
    Now(String, Option<Duration>),
    /// It will not be.
    #[error("{0}")]
    Ever(String),
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("endpoint", &self.shared.endpoint).finish_non_exhaustive()
    }
}

impl Exporter {
    /// Begins to export. Call it within a tokio runtime.
    pub fn start(options: Options) -> Self {
        let (spans, waiting) = mpsc::channel(WAITING);
        let exporter = Self {
            shared: Arc::new(Shared {
                endpoint: options.endpoint,
                percent: options.percent,
                spans,
                exported: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
                trouble: Mutex::default(),
            }),
        };
        tokio::spawn(exporter.clone().run(options.resource, waiting));
        exporter
    }

    /// Makes it the one of this process, unless it has one.
    pub fn for_process(self) -> Self {
        OF_PROCESS.get_or_init(|| self).clone()
    }

    /// That of this process.
    pub fn of_process() -> Option<Self> {
        OF_PROCESS.get().cloned()
    }

    /// To where.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// What became of spans.
    pub fn counts(&self) -> Counts {
        Counts {
            exported: self.shared.exported.load(Ordering::Relaxed),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            trouble: self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Sends what waits, for a second at most: the process ends.
    pub async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        let flush = async {
            if self.shared.spans.send(Order::Flush(done)).await.is_ok() {
                let _ = is_done.await;
            }
        };
        if timeout(FAREWELL, flush).await.is_err() {
            debug!("the last spans are not exported: the collector takes too long");
        }
    }

    /// Whether a trace that begins now is exported.
    pub(crate) fn samples(&self) -> bool {
        rand::rng().random_range(0..100) < self.shared.percent
    }

    /// Hands over a span that has ended.
    pub(crate) fn take(&self, span: Span) {
        if self.shared.spans.try_send(Order::Span(span)).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn run(self, resource: Describe, mut waiting: mpsc::Receiver<Order>) {
        // One that is kept here alone ends with its process.
        while let Some(first) = waiting.recv().await {
            let mut spans = Vec::new();
            let mut flush = None;
            let mut next = Some(first);
            let gathered = tokio::time::Instant::now() + GATHER;
            while let Some(order) = next {
                match order {
                    Order::Span(span) => spans.push(span),
                    Order::Flush(done) => flush = Some(done),
                }
                if flush.is_some() || spans.len() >= BATCH {
                    break;
                }
                next = tokio::time::timeout_at(gathered, waiting.recv()).await.ok().flatten();
            }
            if !spans.is_empty() {
                self.export(resource(), &spans, flush.is_some()).await;
            }
            if let Some(done) = flush {
                let _ = done.send(());
            }
        }
    }

    async fn export(&self, resource: Vec<(&'static str, Value)>, spans: &[Span], last: bool) {
        let message = Bytes::from(otlp::request(resource, spans).encode_to_vec());
        let count = spans.len() as u64;
        let mut pause = MIN_PAUSE;
        for left in (0..TRIES).rev() {
            let refused = match self.send(message.clone()).await {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    self.shared.exported.fetch_add(count - rejected, Ordering::Relaxed);
                    self.shared.dropped.fetch_add(rejected, Ordering::Relaxed);
                    let why = (rejected > 0).then(|| format!("the collector rejected {rejected} spans"));
                    return self.tell(why);
                }
                Err(refused) => refused,
            };
            self.tell(Some(refused.to_string()));
            let wait = match refused {
                Refused::Now(_, wait) if left > 0 && !last => wait,
                _ => break,
            };
            // Nodes that lose a collector together do not come back together.
            let some = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            sleep(wait.unwrap_or(some).min(MAX_PAUSE)).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
        self.shared.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// Remembers how the collector is, and logs when that changes.
    fn tell(&self, trouble: Option<String>) {
        let mut before = self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*before, &trouble) {
            (None, Some(why)) => warn!(endpoint = %self.shared.endpoint, why, "spans are not exported"),
            (Some(_), None) => tracing::info!(endpoint = %self.shared.endpoint, "spans are exported again"),
            _ => {}
        }
        *before = trouble;
    }

    /// Sends one message; tells how many of its spans were rejected.
    async fn send(&self, message: Bytes) -> Result<u64, Refused> {
        match timeout(ANSWER, self.ask(message)).await {
            Ok(answer) => answer,
            Err(_) => Err(Refused::Now(format!("no answer within {} s", ANSWER.as_secs()), None)),
        }
    }

    async fn ask(&self, message: Bytes) -> Result<u64, Refused> {
        let now = |what: &str, error: &dyn fmt::Display| Refused::Now(format!("{what}: {error}"), None);
        let endpoint = &self.shared.endpoint;
        let stream = TcpStream::connect(endpoint.dial()).await.map_err(|e| now("connect", &e))?;
        let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| now("connect", &e))?;
        let request = Request::post(&endpoint.path)
            .header(HOST, format!("{}:{}", endpoint.host, endpoint.port))
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, concat!("meshd/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(message))
            .map_err(|error| Refused::Ever(error.to_string()))?;
        let answered = async {
            let answer = client.send_request(request).await.map_err(|e| now("send", &e))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER).collect().await;
            Ok((head, body.map(|body| body.to_bytes()).unwrap_or_default()))
        };
        // The connection is driven by this very future, so that it ends with it.
        let (head, body) = tokio::select! {
            answered = answered => answered?,
            Err(error) = connection => return Err(now("send", &error)),
        };
        let said = || format!("the collector answers {}", head.status);
        match head.status {
            status if status.is_success() => {
                let answer = otlp::ExportResponse::decode(body).unwrap_or_default();
                Ok(answer.partial_success.map_or(0, |part| u64::try_from(part.rejected_spans).unwrap_or(0)))
            }
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                let after = head.headers.get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
                Err(Refused::Now(said(), after.map(Duration::from_secs)))
            }
            _ => Err(Refused::Ever(said())),
        }
    }
}
