//! The daemon's unix socket.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt, task::AtomicWaker};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    task::yield_now,
    time::{Instant, Sleep, sleep},
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{
    Channel, Uri,
    server::{Connected, UdsConnectInfo},
};
use tracing::warn;

use super::{ConnectError, FIRST_WORD, endpoint};

/// Connections at once that have said nothing yet. One more, and the one that has been silent for longest goes.
const SILENT: usize = 64;

/// How long a caller waits while more callers than the socket's backlog holds are there, and between two attempts.
const CROWDED: Duration = Duration::from_secs(10);
const CROWDED_PAUSE: Duration = Duration::from_millis(2);

/// How long those that were told to go are waited for at most, before the next is accepted.
const LEAVE: Duration = Duration::from_millis(100);

/// A channel to the daemon that listens on the socket `path`.
pub fn unix_channel(path: impl Into<PathBuf>) -> Channel {
    endpoint().connect_with_connector_lazy(connector(path.into()))
}

/// The same, connected before it returns.
pub async fn unix_connect(path: impl Into<PathBuf>) -> Result<Channel, ConnectError> {
    let path = path.into();
    let connected = endpoint().connect_with_connector(connector(path.clone())).await;
    connected.map_err(|source| ConnectError { to: path.display().to_string(), source })
}

fn connector(
    path: PathBuf,
) -> impl tower::Service<Uri, Response = TokioIo<UnixStream>, Error = io::Error, Future: Send> {
    tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { patiently(&path).await.map(TokioIo::new) }
    })
}

/// Connects, and waits a while for room among those that the daemon has not accepted yet, as a call that blocks would.
async fn patiently(path: &Path) -> io::Result<UnixStream> {
    let begun = Instant::now();
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && begun.elapsed() < CROWDED => {
                sleep(CROWDED_PAUSE).await;
            }
            connected => return connected,
        }
    }
}

/// The connections of a listener, for tonic's server; requests carry [`UdsConnectInfo`].
///
/// One that says nothing is closed after some seconds, and earlier when many others are silent too: they cost a file
/// descriptor each. A failure to accept, as when those have run out, ends nothing.
pub fn unix_incoming(listener: UnixListener) -> impl Stream<Item = io::Result<UnixIo>> + Send {
    let silent = Arc::new(Silent::default());
    UnixListenerStream::new(listener).filter_map(move |accepted| {
        let silent = silent.clone();
        async move {
            match accepted {
                Ok(stream) => {
                    let io = UnixIo::new(stream, &silent);
                    silent.settle().await;
                    Some(Ok(io))
                }
                Err(error) => {
                    warn!(%error, "accept failed");
                    sleep(super::ACCEPT_PAUSE).await;
                    None
                }
            }
        }
    })
}

/// Those that have said nothing, in the order in which they came.
#[derive(Debug, Default)]
struct Silent {
    waiting: Mutex<VecDeque<Weak<Turn>>>,
    /// Those that were told to go, and hold their file descriptors until they have.
    leaving: Mutex<Vec<Weak<Turn>>>,
}

/// Tells a connection that it has to go.
#[derive(Debug, Default)]
struct Turn {
    over: AtomicBool,
    waker: AtomicWaker,
}

impl Silent {
    fn enter(&self) -> Arc<Turn> {
        let turn = Arc::new(Turn::default());
        let mut silent = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        silent.push_back(Arc::downgrade(&turn));
        while silent.len() > SILENT {
            // Some have spoken, or gone: first those, wherever they stand.
            let before = silent.len();
            silent.retain(|turn| turn.strong_count() > 0);
            if silent.len() == before
                && let Some(first) = silent.pop_front().and_then(|turn| turn.upgrade())
            {
                first.over.store(true, Ordering::Release);
                first.waker.wake();
                self.leaving.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&first));
            }
        }
        turn
    }

    /// Waits until most of those that were told to go have gone: who accepts is quicker than they.
    async fn settle(&self) {
        let begun = Instant::now();
        while self.are_leaving() > SILENT && begun.elapsed() < LEAVE {
            yield_now().await;
        }
    }

    fn are_leaving(&self) -> usize {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.retain(|turn| turn.strong_count() > 0);
        leaving.len()
    }
}

/// An accepted connection.
#[derive(Debug)]
pub struct UnixIo {
    stream: UnixStream,
    /// Until the first word: when it is over, by the clock or by the others.
    waits: Option<(Arc<Turn>, Pin<Box<Sleep>>)>,
}

impl UnixIo {
    fn new(stream: UnixStream, silent: &Silent) -> Self {
        Self { stream, waits: Some((silent.enter(), Box::pin(sleep(FIRST_WORD)))) }
    }
}

impl Connected for UnixIo {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for UnixIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.waits = None;
        } else if read.is_pending()
            && let Some((turn, end)) = &mut self.waits
        {
            turn.waker.register(cx.waker());
            if turn.over.load(Ordering::Acquire) || end.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for UnixIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
