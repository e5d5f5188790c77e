//! Where packets are written, by a thread of its own: one that waits for a reader must not keep Ctrl-C from being heard.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, oneshot};

/// Blocks that wait to be written.
const WAITING: usize = 256;

/// What becomes of blocks.
#[derive(Debug)]
pub struct Written {
    /// Blocks written whole, without the first.
    pub packets: u64,
    /// Whether all were.
    pub ended: Result<()>,
}

/// Writes blocks one after the other.
pub struct Out {
    blocks: mpsc::Sender<Vec<u8>>,
    written: oneshot::Receiver<Written>,
}

impl Out {
    /// Opens the file, or stdout for `-`, and writes its head.
    pub fn start(path: &Path, head: Vec<u8>) -> Result<Self> {
        let mut target = Target::open(path)?;
        let (blocks, mut waiting) = mpsc::channel::<Vec<u8>>(WAITING);
        let (tell, written) = oneshot::channel();
        let write = move || {
            let (mut packets, mut next) = (0, Some((head, 0)));
            let ended = loop {
                let Some((block, counts)) = next else { break Ok(()) };
                match target.write(&block) {
                    Ok(true) => packets += counts,
                    // Whoever reads has seen enough, as with `| head`.
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                }
                next = waiting.blocking_recv().map(|block| (block, 1));
            };
            // Nobody waits for it any more.
            let _ = tell.send(Written { packets, ended });
        };
        thread::Builder::new().name("write".to_owned()).spawn(write).context("cannot start a thread")?;
        Ok(Self { blocks, written })
    }

    /// Hands on a block, when there is room for it.
    pub async fn write(&self, block: Vec<u8>) {
        // That nothing is written any more is seen by `closed`.
        let _ = self.blocks.send(block).await;
    }

    /// Until nothing can be written any more.
    pub async fn closed(&self) {
        self.blocks.closed().await;
    }

    /// Until all is written.
    pub async fn finish(self) -> Written {
        drop(self.blocks);
        let gone =
            |_| Written { packets: 0, ended: Err(anyhow::anyhow!("the thread that writes has ended")) };
        self.written.await.unwrap_or_else(gone)
    }
}

struct Target {
    to: Box<dyn Write + Send>,
    /// To be cut to its whole blocks after one that could not be written.
    file: Option<(File, PathBuf, u64)>,
}

impl Target {
    fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self { to: Box::new(io::stdout()), file: None });
        }
        // What tasks say to each other is nobody else's.
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let opened = file.and_then(|file| Ok((file.try_clone()?, file)));
        let (to, file) = opened.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { to: Box::new(to), file: Some((file, path.to_owned(), 0)) })
    }

    /// Whether somebody still reads.
    fn write(&mut self, block: &[u8]) -> Result<bool> {
        match self.to.write_all(block).and_then(|()| self.to.flush()) {
            Ok(()) => {
                if let Some((_, _, whole)) = &mut self.file {
                    *whole += block.len() as u64;
                }
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => {
                let Some((file, path, whole)) = &self.file else {
                    return Err(error).context("cannot write to stdout");
                };
                let kept = match file.set_len(*whole) {
                    Ok(()) => "what was written before can be read",
                    Err(_) => "its end may be torn",
                };
                Err(error).with_context(|| format!("cannot write {}; {kept}", path.display()))
            }
        }
    }
}
