//! Runs a [`Core`] over sockets: opens what comes in, seals what goes out, tells the time.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use mesh_types::NodeId;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, trace};

use crate::{
    Announcement, Core, CoreConfig, CoreStats, EntryReport, GossipConfig, GossipError, Input, Interest,
    KeyRing, Output, Rates, Report, SealError, Sealer, Stats, Tables,
    errand::{self, Answerer, ErrandError, Errands},
    meter::Meter,
    questions::Questions,
    reach::{Reach, ReachSpec, Reached, is_word},
    stream::{self, StreamError},
};

/// TCP messages under way, each direction.
const STREAMS: usize = 64;
/// Incoming ones from addresses at which no peer is listed. A member may send from another address than it is reached at, so
/// they are served, but they cannot take the place of those that are known.
const STRANGE_STREAMS: usize = 8;
const STREAM_TIMEOUT: Duration = Duration::from_secs(5);
/// Datagrams handled before tables are published anew.
const BATCH: usize = 64;
/// Time for a farewell to be said and said again.
const FAREWELL: Duration = Duration::from_millis(250);
pub(crate) const DATAGRAM: &[u8] = b"udp";

/// A running member; clones share it. It stops when [`Gossip::shutdown`] is called or the last clone is dropped,
/// without a word to the others: they find it dead. [`Gossip::leave`] tells them.
#[derive(Clone)]
pub struct Gossip {
    commands: mpsc::Sender<Command>,
    tables: watch::Receiver<Arc<Tables>>,
    shared: Arc<Shared>,
    local: SocketAddr,
    started: Instant,
}

enum Command {
    Core(Input, oneshot::Sender<()>),
    Report(oneshot::Sender<Report>),
    Entries(oneshot::Sender<Vec<EntryReport>>),
    AskFrom(IpAddr),
    Shutdown(oneshot::Sender<()>),
}

struct Shared {
    sealer: RwLock<Arc<Sealer>>,
    core: RwLock<CoreStats>,
    counters: Counters,
    meter: Mutex<Meter>,
    /// Addresses at which peers are listed.
    peers: RwLock<BTreeSet<IpAddr>>,
    reach: Reach,
    errands: Errands,
}

#[derive(Default)]
struct Counters {
    datagrams_out: AtomicU64,
    datagrams_in: AtomicU64,
    bytes_out: AtomicU64,
    bytes_in: AtomicU64,
    streams_out: AtomicU64,
    streams_in: AtomicU64,
    stream_bytes_out: AtomicU64,
    stream_bytes_in: AtomicU64,
    send_failed: AtomicU64,
    malformed: AtomicU64,
    unknown_key: AtomicU64,
    forged: AtomicU64,
    overload: AtomicU64,
}

impl Shared {
    fn sealer(&self) -> Arc<Sealer> {
        self.sealer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stats(&self) -> Stats {
        let c = &self.counters;
        Stats {
            datagrams_out: c.datagrams_out.load(Relaxed),
            datagrams_in: c.datagrams_in.load(Relaxed),
            bytes_out: c.bytes_out.load(Relaxed),
            bytes_in: c.bytes_in.load(Relaxed),
            streams_out: c.streams_out.load(Relaxed),
            streams_in: c.streams_in.load(Relaxed),
            stream_bytes_out: c.stream_bytes_out.load(Relaxed),
            stream_bytes_in: c.stream_bytes_in.load(Relaxed),
            send_failed: c.send_failed.load(Relaxed),
            dropped_malformed: c.malformed.load(Relaxed),
            dropped_unknown_key: c.unknown_key.load(Relaxed),
            dropped_forged: c.forged.load(Relaxed),
            dropped_overload: c.overload.load(Relaxed),
            core: *self.core.read().unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn is_peer(&self, addr: SocketAddr) -> bool {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).contains(&addr.ip().to_canonical())
    }

    fn measure(&self, now: Duration) {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).measure(now, || self.stats());
    }

    fn refused(&self, error: SealError) {
        let counter = match error {
            SealError::Malformed | SealError::Cipher => &self.counters.malformed,
            SealError::UnknownKey => &self.counters.unknown_key,
            SealError::Forged => &self.counters.forged,
        };
        counter.fetch_add(1, Relaxed);
    }
}

impl Gossip {
    /// Listens on UDP and TCP, and starts. It knows of nobody until [`Gossip::set_peers`] or until others call.
    pub async fn start(mut config: GossipConfig) -> Result<Gossip, GossipError> {
        config.timing.check()?;
        if config.advertise.ip().is_unspecified() || config.advertise.ip().is_multicast() {
            return Err(GossipError::Advertise(config.advertise));
        }
        let (tcp, udp, local) = bind(config.bind).await?;
        if config.advertise.port() == 0 {
            config.advertise.set_port(local.port());
        }
        let udp = Arc::new(udp);
        let mut core = Core::new(CoreConfig {
            node: config.node,
            advertise: config.advertise,
            incarnation: config.incarnation,
            timing: config.timing,
            seed: rand::random(),
        });
        let shared = Arc::new(Shared {
            sealer: RwLock::new(Arc::new(Sealer::new(config.cluster, &config.keys))),
            core: RwLock::default(),
            counters: Counters::default(),
            meter: Mutex::default(),
            peers: RwLock::default(),
            reach: Reach::new(&udp),
            errands: Errands::default(),
        });
        let (commands, command_queue) = mpsc::channel(64);
        let (stream_queue, streams) = mpsc::channel(STREAMS);
        let (publish, tables) = watch::channel(Arc::new(core.take_tables().unwrap_or_default()));
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(tcp, shared.clone(), stream_queue));
        let driver = Driver {
            core,
            udp,
            questions: Questions::default(),
            shared: shared.clone(),
            publish,
            started,
            tasks,
            out: Vec::new(),
        };
        tokio::spawn(driver.run(command_queue, streams));
        debug!(node = %config.node, cluster = %config.cluster, %local, "gossip started");
        Ok(Gossip { commands, tables, shared, local, started })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// How long it has run; [`crate::MemberStatus::since`] counts from the same moment.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// States all endpoints of this node. What is new or changed is told to the others at once, and what is not
    /// listed any more is deleted there. Returns when the first datagrams are out.
    pub async fn announce(&self, own: Vec<Announcement>) {
        self.tell(Input::Announce(own)).await;
    }

    /// States the tables that this node wants, besides those it announces in. New ones are fetched at once.
    pub async fn set_interest(&self, interest: Interest) {
        self.tell(Input::Interest(interest)).await;
    }

    /// States the members that the managers know. Those not alive are tried for ever; those that were listed before
    /// and are not now are forgotten with their entries, and refused from then on.
    pub async fn set_peers(&self, peers: Vec<(NodeId, SocketAddr)>) {
        let addresses = peers.iter().map(|(_, addr)| addr.ip().to_canonical()).collect();
        *self.shared.peers.write().unwrap_or_else(PoisonError::into_inner) = addresses;
        self.tell(Input::Peers(peers)).await;
    }

    /// States where the data paths of listed peers can be asked whether they work, and the address of this node's own, which
    /// alone they answer. Those that are not here count as gone as soon as their daemon is.
    pub async fn set_data_paths(&self, own: IpAddr, others: Vec<(NodeId, SocketAddr)>) {
        // After a shutdown there is nothing left to do.
        let _ = self.commands.send(Command::AskFrom(own)).await;
        self.tell(Input::DataPaths(others)).await;
    }

    /// States that others reach this node at `addr` from now on; port 0 stands for the bound one. They are told.
    pub async fn set_advertise(&self, mut addr: SocketAddr) {
        if addr.port() == 0 {
            addr.set_port(self.local.port());
        }
        self.tell(Input::Advertise(addr)).await;
    }

    /// Changes the keys: to rotate, add the new one everywhere, then put it first, then drop the old one.
    pub async fn set_keys(&self, keys: KeyRing) {
        let mut sealer = self.shared.sealer.write().unwrap_or_else(PoisonError::into_inner);
        *sealer = Arc::new(sealer.with_keys(&keys));
    }

    /// What this node knows, now and whenever it changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Tables>> {
        self.tables.clone()
    }

    /// Deletes this node's entries and takes leave of the others; returns when that has been said. Afterwards only
    /// [`Gossip::shutdown`] makes sense.
    pub async fn leave(&self) {
        self.tell(Input::Leave).await;
        sleep(FAREWELL).await;
    }

    /// Stops, and returns when the sockets are closed.
    pub async fn shutdown(&self) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Shutdown(done)).await.is_ok() {
            let _ = wait.await;
        }
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// What passed in about the last ten seconds, each second.
    pub fn rates(&self) -> Rates {
        let meter = self.shared.meter.lock().unwrap_or_else(PoisonError::into_inner);
        meter.rates(self.started.elapsed(), self.stats())
    }

    /// How this node stands; none after a shutdown.
    pub async fn report(&self) -> Option<Report> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command::Report(done)).await.ok()?;
        wait.await.ok()
    }

    /// All entries that this node knows, by table, owner and task; none after a shutdown.
    pub async fn entries(&self) -> Option<Vec<EntryReport>> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command::Entries(done)).await.ok()?;
        wait.await.ok()
    }

    /// Asks another member by every way, and has it try every way back; takes some seconds where one is closed.
    pub async fn reach(&self, spec: &ReachSpec) -> Reached {
        self.shared.reach.ask(spec, self.shared.sealer()).await
    }

    /// Has questions of other members answered by `answerer`. See [`Gossip::ask`].
    pub fn answer_by(&self, answerer: Answerer) {
        self.shared.errands.answer_by(answerer);
    }

    /// Asks the daemon of another member, at its gossip address, for whatever both know how to answer.
    pub async fn ask(&self, to: SocketAddr, question: &[u8]) -> Result<Vec<u8>, ErrandError> {
        errand::ask(to, question, &self.shared.sealer()).await
    }

    async fn tell(&self, input: Input) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Core(input, done)).await.is_ok() {
            // After a shutdown there is nobody to answer, and nothing left to do.
            let _ = wait.await;
        }
    }
}

/// Binds TCP and UDP to the same port; with port 0, to one that is free for both.
async fn bind(address: SocketAddr) -> Result<(TcpListener, UdpSocket, SocketAddr), GossipError> {
    let tcp_error = |source| GossipError::Bind { transport: "TCP", address, source };
    for attempt in 0.. {
        let tcp = TcpListener::bind(address).await.map_err(tcp_error)?;
        let local = tcp.local_addr().map_err(tcp_error)?;
        match UdpSocket::bind(local).await {
            Ok(udp) => return Ok((tcp, udp, local)),
            Err(_) if address.port() == 0 && attempt < 16 => {}
            Err(source) => return Err(GossipError::Bind { transport: "UDP", address: local, source }),
        }
    }
    Err(tcp_error(std::io::ErrorKind::AddrInUse.into()))
}

/// Serves incoming TCP messages, a bounded number at a time.
async fn accept(listener: TcpListener, shared: Arc<Shared>, queue: mpsc::Sender<Vec<u8>>) {
    let slots = Arc::new(Semaphore::new(STREAMS));
    let strange_slots = Arc::new(Semaphore::new(STRANGE_STREAMS));
    let mut readers = JoinSet::new();
    loop {
        while readers.try_join_next().is_some() {}
        let Ok((connection, from)) = listener.accept().await else {
            // Out of descriptors, most likely: wait for some to come back.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let pool = if shared.is_peer(from) { &slots } else { &strange_slots };
        let Ok(slot) = pool.clone().try_acquire_owned() else {
            shared.counters.overload.fetch_add(1, Relaxed);
            continue;
        };
        let (shared, queue) = (shared.clone(), queue.clone());
        readers.spawn(async move {
            let sealer = shared.sealer();
            let mut connection = connection;
            match timeout(STREAM_TIMEOUT, stream::read(&mut connection, &sealer)).await {
                Ok(Ok(message)) => {
                    shared.counters.streams_in.fetch_add(1, Relaxed);
                    shared.counters.stream_bytes_in.fetch_add(message.len() as u64, Relaxed);
                    if errand::is_question(&message) {
                        return shared.errands.serve(message, connection, &sealer).await;
                    }
                    drop(connection);
                    let _ = queue.send(message).await;
                }
                Ok(Err(StreamError::Seal(error))) => shared.refused(error),
                Ok(Err(error)) => trace!(%from, %error, "gossip stream dropped"),
                Err(_) => trace!(%from, "gossip stream timed out"),
            }
            drop(slot);
        });
    }
}

struct Driver {
    core: Core,
    udp: Arc<UdpSocket>,
    questions: Questions,
    shared: Arc<Shared>,
    publish: watch::Sender<Arc<Tables>>,
    started: Instant,
    tasks: JoinSet<()>,
    out: Vec<Output>,
}

impl Driver {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut streams: mpsc::Receiver<Vec<u8>>) {
        let slots = Arc::new(Semaphore::new(STREAMS));
        // One byte more than any datagram that is sent tells those that are too long.
        let mut buffer = vec![0; crate::MAX_DATAGRAM + 1];
        loop {
            let deadline = self.core.deadline().min(Duration::from_secs(3600));
            let mut done = None;
            tokio::select! {
                received = self.udp.recv_from(&mut buffer) => match received {
                    Ok((len, from)) => {
                        self.datagram(&mut buffer[..len], from);
                        self.drain(&mut buffer);
                    }
                    Err(error) => {
                        debug!(%error, "gossip datagram not received");
                        sleep(Duration::from_millis(10)).await;
                    }
                },
                (from, nonce) = self.questions.answer() => self.handle(Input::Answer { from, nonce }),
                Some(message) = streams.recv() => match is_word(&message) {
                    true => self.reach(&message, None),
                    false => self.handle(Input::Stream(message)),
                },
                command = commands.recv() => match command {
                    Some(Command::Core(input, reply)) => {
                        self.handle(input);
                        done = Some(reply);
                    }
                    // Who asked may have gone in the meantime.
                    Some(Command::Report(reply)) => drop(reply.send(self.core.report())),
                    Some(Command::Entries(reply)) => drop(reply.send(self.core.entries())),
                    Some(Command::AskFrom(own)) => self.questions.ask_from(own),
                    Some(Command::Shutdown(reply)) => {
                        self.tasks.shutdown().await;
                        drop(self);
                        let _ = reply.send(());
                        return;
                    }
                    None => return,
                },
                () = sleep_until(self.started + deadline) => {
                    // What came while this process stood still may be the answer that a timer asks for.
                    self.drain(&mut buffer);
                    self.handle(Input::Tick);
                }
            }
            self.flush(&slots).await;
            if let Some(reply) = done {
                let _ = reply.send(());
            }
        }
    }

    fn handle(&mut self, input: Input) {
        self.core.handle(input, self.started.elapsed(), &mut self.out);
    }

    fn reach(&self, bytes: &[u8], from: Option<SocketAddr>) {
        self.shared.reach.take(bytes, from, self.questions.own(), self.shared.sealer());
    }

    fn drain(&mut self, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            match self.udp.try_recv_from(buffer) {
                Ok((len, from)) => self.datagram(&mut buffer[..len], from),
                Err(_) => break,
            }
        }
        for (from, nonce) in std::iter::from_fn(|| self.questions.waiting()).take(BATCH).collect::<Vec<_>>() {
            self.handle(Input::Answer { from, nonce });
        }
    }

    fn datagram(&mut self, sealed: &mut [u8], from: SocketAddr) {
        let counters = &self.shared.counters;
        counters.datagrams_in.fetch_add(1, Relaxed);
        counters.bytes_in.fetch_add(sealed.len() as u64, Relaxed);
        if sealed.len() > crate::MAX_DATAGRAM {
            return self.shared.refused(SealError::Malformed);
        }
        // What strangers send is refused where it was received, without a copy.
        match self.shared.sealer().open_in_place(sealed, DATAGRAM).map(<[u8]>::to_vec) {
            Ok(bytes) if is_word(&bytes) => self.reach(&bytes, Some(from)),
            Ok(bytes) => self.handle(Input::Datagram(bytes)),
            Err(error) => self.shared.refused(error),
        }
    }

    async fn flush(&mut self, slots: &Arc<Semaphore>) {
        let shared = &self.shared;
        let counters = &shared.counters;
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::Datagram { to, bytes } => {
                    let Ok(sealed) = shared.sealer().seal(&bytes, DATAGRAM) else { continue };
                    match self.udp.send_to(&sealed, to).await {
                        Ok(len) => {
                            counters.datagrams_out.fetch_add(1, Relaxed);
                            counters.bytes_out.fetch_add(len as u64, Relaxed);
                        }
                        Err(error) => {
                            trace!(%to, %error, "gossip datagram not sent");
                            counters.send_failed.fetch_add(1, Relaxed);
                        }
                    }
                }
                Output::Question { to, nonce } => self.questions.ask(to, nonce).await,
                Output::Stream { to, bytes } => {
                    let Ok(slot) = slots.clone().try_acquire_owned() else {
                        counters.overload.fetch_add(1, Relaxed);
                        continue;
                    };
                    let shared = shared.clone();
                    self.tasks.spawn(async move {
                        let sealer = shared.sealer();
                        let sent = timeout(STREAM_TIMEOUT, async {
                            stream::write(TcpStream::connect(to).await?, &sealer, &bytes).await
                        });
                        let counter = match sent.await {
                            Ok(Ok(())) => {
                                shared.counters.stream_bytes_out.fetch_add(bytes.len() as u64, Relaxed);
                                &shared.counters.streams_out
                            }
                            _ => &shared.counters.send_failed,
                        };
                        counter.fetch_add(1, Relaxed);
                        drop(slot);
                    });
                }
            }
        }
        while self.tasks.try_join_next().is_some() {}
        self.shared.measure(self.started.elapsed());
        *self.shared.core.write().unwrap_or_else(PoisonError::into_inner) = self.core.stats();
        if let Some(tables) = self.core.take_tables() {
            self.publish.send_replace(Arc::new(tables));
        }
    }
}
