//! The connection to the kernel.

use std::{io, sync::Arc};

use futures::{Stream, TryStreamExt};
use rtnetlink::Handle;
use tokio::{sync::Mutex, task::JoinHandle};

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

    /// Reads a list to its end, also when the caller gives up meanwhile: the kernel refuses a second one on the same
    /// socket (EBUSY) until the first is over.
    pub(crate) async fn dump<T, S>(
        &self,
        ask: impl FnOnce(&Handle) -> S,
    ) -> std::result::Result<Vec<T>, rtnetlink::Error>
    where
        T: Send + 'static,
        S: Stream<Item = std::result::Result<T, rtnetlink::Error>> + Send + 'static,
    {
        let turn = self.dumps.clone().lock_owned().await;
        let list = ask(&self.handle);
        let reading = tokio::spawn(async move {
            let read = list.try_collect().await;
            drop(turn);
            read
        });
        reading.await.unwrap_or(Err(rtnetlink::Error::RequestFailed))
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
