//! The connection to the kernel.

use std::{io, num::NonZeroI32, sync::Arc, time::Duration};

use futures::{Stream, TryStreamExt};
use netlink_packet_core::ErrorMessage;
use rtnetlink::Handle;
use tokio::{sync::Mutex, task::JoinHandle};

use crate::{Error, NetNs, Result};

/// How long the kernel may take for an answer: far more than it does on a machine that starts hundreds of containers. One that
/// it cannot deliver, or does not send because a signal came (`netlink_rcv_skb`), would be waited for for ever.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// What is asked of the kernel.
pub(crate) trait Request<T>:
    Future<Output = std::result::Result<T, rtnetlink::Error>> + Sized
{
    /// Waits for the answer, not for ever: `ETIMEDOUT` then, and what was asked for may be done or not.
    async fn answered(self) -> std::result::Result<T, rtnetlink::Error> {
        tokio::time::timeout(PATIENCE, self).await.unwrap_or_else(|_| {
            let mut late = ErrorMessage::default();
            late.code = NonZeroI32::new(-libc::ETIMEDOUT);
            Err(rtnetlink::Error::NetlinkError(late))
        })
    }
}

impl<T, F: Future<Output = std::result::Result<T, rtnetlink::Error>>> Request<T> for F {}

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
            let read = list.try_collect().answered().await;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection whose messages nobody moves.
    fn unanswered() -> Netlink {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        let kept = tokio::spawn(async move {
            let _open = connection;
            std::future::pending::<()>().await;
        });
        Netlink { handle, dumps: Arc::default(), _connection: Arc::new(Connection(kept)) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kernel_that_does_not_answer_is_an_error_that_says_so() {
        let netlink = unanswered();
        let errors = [
            netlink.remove_link("msh1").await.unwrap_err(),
            netlink.up_without_ipv6_autoconf(7, "msh1").await.unwrap_err(),
            // A list that never ended is in the way of no other.
            netlink.links("msh").await.unwrap_err(),
            netlink.links("msh").await.unwrap_err(),
        ];
        for error in errors {
            assert!(error.is_late() && error.to_string().contains("does not answer"), "{error}");
        }
    }
}
