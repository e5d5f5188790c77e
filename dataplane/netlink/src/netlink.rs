//! The connection to the kernel.

use std::{io, sync::Arc};

use rtnetlink::Handle;
use tokio::{
    sync::{Mutex, MutexGuard},
    task::JoinHandle,
};

use crate::{Error, NetNs, Result};

/// A route netlink connection of one network namespace. Cheap to clone; closed with the last clone.
#[derive(Clone)]
pub struct Netlink {
    pub(crate) handle: Handle,
    dumps: Arc<Mutex<()>>,
    _connection: Arc<Connection>,
}

/// The task that moves messages, ended with its owner so that the socket does not keep a namespace alive.
pub(crate) struct Connection(pub(crate) JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Netlink {
    /// Connects in the namespace of the calling thread; must be called inside a tokio runtime.
    pub fn connect() -> Result<Self> {
        Self::open(&runtime()?).map_err(Error::Connect)
    }

    /// To be held while a list is read: the kernel refuses a second one on the same socket (EBUSY) until the first is
    /// at its end.
    pub(crate) async fn dump(&self) -> MutexGuard<'_, ()> {
        self.dumps.lock().await
    }

    /// Connects inside `ns`; the messages are moved by the current runtime.
    pub fn connect_in(ns: &NetNs) -> Result<Self> {
        let runtime = runtime()?;
        ns.run(|| Self::open(&runtime))?.map_err(Error::Connect)
    }

    fn open(runtime: &tokio::runtime::Handle) -> io::Result<Self> {
        let _guard = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self {
            handle,
            dumps: Arc::default(),
            _connection: Arc::new(Connection(runtime.spawn(connection))),
        })
    }
}

fn runtime() -> Result<tokio::runtime::Handle> {
    tokio::runtime::Handle::try_current().map_err(|e| Error::Connect(io::Error::other(e)))
}
