//! A TCP connection that carries bytes to and fro for as long as a test lasts, and looks at each of them.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::wait::wait;

/// How long one side may wait for the other before the connection counts as broken.
const SILENCE: Duration = Duration::from_secs(20);
const CHUNK: usize = 64 * 1024;

/// An echoed stream. Its sockets may live in any namespaces. Ended on drop.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    echoed: Arc<AtomicU64>,
    broken: Arc<Mutex<Option<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    /// Sends over `client`, and echoes what the first connection that `server` accepts brings.
    pub fn start(server: TcpListener, client: TcpStream) -> Result<Self> {
        client.set_read_timeout(Some(SILENCE)).context("a socket's timeout")?;
        client.set_write_timeout(Some(SILENCE)).context("a socket's timeout")?;
        let (stop, echoed, broken) = (Arc::default(), Arc::default(), Arc::default());
        let mut stream = Self { stop, echoed, broken, threads: Vec::new() };
        let (stop, broken) = (stream.stop.clone(), stream.broken.clone());
        stream.threads.push(std::thread::spawn(move || note(&broken, echo(&server, &stop))));
        let (stop, broken, echoed) = (stream.stop.clone(), stream.broken.clone(), stream.echoed.clone());
        stream.threads.push(std::thread::spawn(move || note(&broken, send(&client, &stop, &echoed))));
        Ok(stream)
    }

    /// Waits until `bytes` more have come back as they were sent.
    pub fn goes_on(&self, bytes: u64, at_most: Duration) -> Result<()> {
        let goal = self.echoed.load(Ordering::Relaxed) + bytes;
        wait("a stream to go on", at_most, || {
            if let Some(why) = &*self.broken.lock().unwrap_or_else(PoisonError::into_inner) {
                bail!("the stream broke: {why}");
            }
            let now = self.echoed.load(Ordering::Relaxed);
            ensure!(now >= goal, "{} bytes of {bytes} are missing", goal - now);
            Ok(())
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn note(broken: &Mutex<Option<String>>, ended: Result<()>) {
    if let Err(error) = ended {
        broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(format!("{error:#}"));
    }
}

fn echo(server: &TcpListener, stop: &AtomicBool) -> Result<()> {
    let (mut stream, _) = server.accept().context("accepting")?;
    stream.set_read_timeout(Some(Duration::from_millis(100))).context("a socket's timeout")?;
    stream.set_write_timeout(Some(SILENCE)).context("a socket's timeout")?;
    let mut buffer = vec![0; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(size) => stream.write_all(&buffer[..size]).context("echoing")?,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(e) => return Err(e).context("the echoing side"),
        }
    }
    Ok(())
}

fn send(mut client: &TcpStream, stop: &AtomicBool, echoed: &AtomicU64) -> Result<()> {
    let mut back = vec![0; CHUNK];
    for turn in 0u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let sent: Vec<u8> = (0..CHUNK as u32).map(|place| (place.wrapping_mul(31) ^ turn) as u8).collect();
        client.write_all(&sent).context("sending")?;
        client.read_exact(&mut back).context("reading the echo")?;
        ensure!(back == sent, "other bytes came back than were sent");
        echoed.fetch_add(CHUNK as u64, Ordering::Relaxed);
    }
    Ok(())
}
