//! The name server of one task.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use tokio::{
    net::{TcpListener, UdpSocket},
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
};

use crate::{
    DnsStats, DnsThread, Error, Sockets, TaskForwarder, TaskView,
    desk::Desk,
    stats::{Counters, Ledger},
    tcp, udp,
};

/// Where tasks ask, as under Docker.
pub const DNS_ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), 53);

/// The name server of one task. Stopped, and its sockets closed, when dropped; [`DnsServer::stop`] waits for it.
///
/// Nobody but who is in the task's network namespace can ask it: its address is the loopback's. So whoever makes it send
/// much to an address that did not ask hits nobody but the same namespace, and over UDP with no more than the sender of
/// the query says that it takes (512 bytes without a word).
#[derive(Debug)]
pub struct DnsServer {
    udp: JoinHandle<()>,
    tcp: JoinHandle<()>,
    counters: Arc<Counters>,
    ledger: Arc<Ledger>,
}

impl DnsServer {
    /// Serves on `thread`, and asks others for what is not ours on the current runtime. Every query is answered from what
    /// `view` holds at that moment.
    pub fn start(
        thread: &DnsThread,
        sockets: Sockets,
        view: watch::Receiver<Arc<TaskView>>,
        forwarder: Arc<TaskForwarder>,
    ) -> Result<Self, Error> {
        let others = Handle::try_current().map_err(|e| Error::Register(std::io::Error::other(e)))?;
        let runtime = thread.runtime();
        let _entered = runtime.enter();
        let socket = UdpSocket::from_std(sockets.udp).map_err(Error::Register)?;
        let listener = TcpListener::from_std(sockets.tcp).map_err(Error::Register)?;
        let ledger = thread.ledger();
        let counters = ledger.begin();
        let desk = Arc::new(Desk::new(view, forwarder, Arc::clone(&counters)));
        Ok(Self {
            udp: runtime.spawn(udp::serve(socket, Arc::clone(&desk), thread.buffers(), others.clone())),
            tcp: runtime.spawn(tcp::serve(listener, desk, others)),
            counters,
            ledger,
        })
    }

    /// What was counted so far.
    pub fn stats(&self) -> DnsStats {
        self.counters.read()
    }

    /// Stops, and returns when the sockets are closed.
    pub async fn stop(mut self) {
        self.abort();
        let _ = (&mut self.udp).await;
        let _ = (&mut self.tcp).await;
    }

    fn abort(&self) {
        self.udp.abort();
        self.tcp.abort();
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.abort();
        self.ledger.end(&self.counters);
    }
}
