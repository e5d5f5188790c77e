//! The thread that serves names.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use mesh_netlink::{Inbox, Outbox};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

use crate::{DnsStats, Error, stats::Ledger};

/// No query that means well is longer.
pub(crate) const LONGEST_QUERY: usize = 4096;

/// Serves the tasks of a node on one thread of its own, task by task in turn, so that neither the daemon's other work nor
/// another task's flood keeps an answer back for long. Servers end with it.
///
/// It stays in the network namespace of the thread that started it; only the sockets are the tasks'.
#[derive(Debug)]
pub struct DnsThread {
    runtime: Handle,
    buffers: Arc<Mutex<Buffers>>,
    ledger: Arc<Ledger>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Room for what is received and sent in one turn, of whichever task.
#[derive(Debug)]
pub(crate) struct Buffers {
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
}

impl DnsThread {
    /// Starts it.
    pub fn start() -> Result<Self, Error> {
        // Sockets are looked at after every turn of a task: one that is asked seldom waits for one turn of the others.
        let runtime =
            Builder::new_current_thread().enable_all().event_interval(1).build().map_err(Error::Register)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = move || {
            // An error is the sender's end.
            let _ = runtime.block_on(stopped);
        };
        let thread = thread::Builder::new().name("names".to_owned()).spawn(serve).map_err(Error::Register)?;
        let buffers = Buffers { inbox: Inbox::new(LONGEST_QUERY), outbox: Outbox::default() };
        Ok(Self {
            runtime: handle,
            buffers: Arc::new(Mutex::new(buffers)),
            ledger: Arc::default(),
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What all servers on it counted, those that ended included.
    pub fn stats(&self) -> DnsStats {
        self.ledger.read()
    }

    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(crate) fn buffers(&self) -> Arc<Mutex<Buffers>> {
        Arc::clone(&self.buffers)
    }
}

impl Drop for DnsThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ends at its next turn. A panic in it was told when it happened.
            let _ = thread.join();
        }
    }
}

pub(crate) fn lock(buffers: &Mutex<Buffers>) -> MutexGuard<'_, Buffers> {
    buffers.lock().unwrap_or_else(PoisonError::into_inner)
}
