//! Queries over TCP, and DNS messages over a stream: two octets of length before each (RFC 1035, section 4.2.2).

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::Mutex,
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};

use crate::{
    desk::{Desk, Left},
    respond::Transport,
    thread::LONGEST_QUERY,
};

/// TCP connections of one task at once; more are closed.
const MOST_CONNECTIONS: usize = 64;
/// How long a connection may be silent, or leave its answers unread (RFC 7766, section 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// Before going on after an error that may come again at once, such as no descriptors left.
const BREATH: Duration = Duration::from_millis(20);
/// Queries answered in one turn of a task.
const BATCH: usize = 32;
/// Answers are sent when they are so long, even if more queries have arrived.
const ENOUGH: usize = 16 * 1024;
/// What is read at once.
const CHUNK: usize = 2048;
const LENGTH: usize = 2;

/// Serves until it is dropped, and everything closed with it. Questions are forwarded on `others`.
pub(crate) async fn serve(listener: TcpListener, desk: Arc<Desk>, others: Handle) {
    let mut connections = JoinSet::new();
    // One connection at a time, so that a task with many of them gets no more turns than others.
    let turns = Arc::new(Mutex::new(()));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                while connections.try_join_next().is_some() {}
                if connections.len() < MOST_CONNECTIONS {
                    let (desk, turns) = (Arc::clone(&desk), Arc::clone(&turns));
                    let connection = Connection {
                        stream,
                        desk,
                        turns,
                        others: others.clone(),
                        input: Vec::new(),
                        output: Vec::new(),
                    };
                    connections.spawn(connection.serve());
                } else {
                    // Another task's turn, before the next one is accepted only to be closed.
                    yield_now().await;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                sleep(BREATH).await;
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    desk: Arc<Desk>,
    turns: Arc<Mutex<()>>,
    others: Handle,
    input: Vec<u8>,
    output: Vec<u8>,
}

enum Next {
    /// More is to be read.
    Read,
    /// What was written is to be sent, then there may be more to answer.
    Send,
    /// What was written is to be sent, then the connection to be closed.
    Close,
    /// What was written is to be sent, then the name servers to be asked.
    Forward { query: Vec<u8>, limit: usize, failure: Vec<u8> },
}

impl Connection {
    async fn serve(mut self) {
        loop {
            let next = {
                let _turn = Arc::clone(&self.turns).lock_owned().await;
                let next = self.turn();
                if matches!(next, Next::Send) {
                    // Others first, this task's other connections too.
                    yield_now().await;
                }
                next
            };
            // Silence, an error and the other side's end all mean the same: close.
            if !self.output.is_empty() {
                if !matches!(timeout(IDLE, self.stream.write_all(&self.output)).await, Ok(Ok(()))) {
                    return;
                }
                self.output.clear();
                self.output.shrink_to(ENOUGH);
            }
            match next {
                Next::Send => {}
                Next::Close => return,
                Next::Read => {
                    self.input.reserve(CHUNK);
                    let read = self.stream.read_buf(&mut self.input);
                    if !matches!(timeout(IDLE, read).await, Ok(Ok(1..))) {
                        return;
                    }
                }
                Next::Forward { query, limit, failure } => {
                    let desk = Arc::clone(&self.desk);
                    // Ends with the connection.
                    let mut asking = JoinSet::new();
                    asking.spawn_on(async move { desk.forward(&query, limit, failure).await }, &self.others);
                    let Some(Ok(response)) = asking.join_next().await else { return };
                    if frame(&mut self.output, |out| out.extend_from_slice(&response)).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Answers what has arrived whole, within bounds.
    fn turn(&mut self) -> Next {
        let mut turn = self.desk.turn();
        let mut done = 0;
        let mut next = Next::Send;
        for _ in 0..BATCH {
            if self.output.len() >= ENOUGH {
                break;
            }
            let rest = self.input.get(done..).unwrap_or_default();
            let Some((length, rest)) = rest.split_first_chunk::<LENGTH>() else {
                next = Next::Read;
                break;
            };
            let length = usize::from(u16::from_be_bytes(*length));
            if length > LONGEST_QUERY {
                next = Next::Close;
                break;
            }
            let Some(query) = rest.get(..length) else {
                next = Next::Read;
                break;
            };
            done += LENGTH + length;
            let mut left = Left::Nothing;
            let framed = frame(&mut self.output, |out| left = turn.answer(query, Transport::Tcp, out));
            match left {
                Left::Nothing if framed.is_ok() => {}
                Left::Nothing | Left::Malformed => next = Next::Close,
                Left::Forward { limit, failure } => {
                    next = Next::Forward { query: query.to_vec(), limit, failure }
                }
            }
            if !matches!(next, Next::Send) {
                break;
            }
        }
        drop(turn);
        self.input.drain(..done);
        next
    }
}

/// Appends one message, its length before it; nothing when `write` appends nothing.
fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
    let begin = out.len();
    out.extend_from_slice(&[0; LENGTH]);
    write(out);
    let length = out.len() - begin - LENGTH;
    let told = u16::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    match (told, out.get_mut(begin..begin + LENGTH)) {
        (Ok(told @ 1..), Some(place)) => {
            place.copy_from_slice(&told.to_be_bytes());
            Ok(())
        }
        (Ok(_), _) => {
            out.truncate(begin);
            Ok(())
        }
        (Err(error), _) => {
            out.truncate(begin);
            Err(error)
        }
    }
}

/// The next message; `None` when the other side has closed.
pub(crate) async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Writes one message in one piece.
pub(crate) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let mut framed = Vec::with_capacity(message.len() + LENGTH);
    frame(&mut framed, |out| out.extend_from_slice(message))?;
    stream.write_all(&framed).await
}
