//! Whether two members reach each other by every way that they need, for people who look for a fault.
//!
//! One asks by UDP and by TCP; the other answers on the way that the question came, and by ways that it opens itself, which
//! a firewall that lets only answers through does not pass. Both are sealed: nobody but members is answered, and only where
//! a member says that it is reached.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use mesh_types::{MANAGER_PORT, VXLAN_PORT};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpStream, UdpSocket},
    sync::{Semaphore, mpsc},
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::trace;

use crate::{Sealer, driver::DATAGRAM, questions::Questions, stream};

/// In the place of a packet's version.
const KIND: u8 = 0xfe;
/// Questions that are answered at a time.
const SLOTS: usize = 8;
/// How long a member tries to open a way to who asked.
const OPEN: Duration = Duration::from_secs(1);
/// When a question is said again: datagrams get lost.
const AGAIN: [Duration; 3] = [Duration::ZERO, Duration::from_millis(200), Duration::from_millis(300)];
/// How long answers are waited for after that; all that a member does before its last one fits in.
const WAIT: Duration = Duration::from_secs(3);

/// A way from one member to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Way {
    /// UDP to the gossip port.
    Udp,
    /// TCP to the gossip port.
    Tcp,
    /// UDP to the VXLAN port.
    DataPath,
    /// TCP to the managers' port.
    Manager,
}

/// What one member found out about its ways to another and back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reached {
    /// Ways that the other is reached by: [`Way::Udp`] and [`Way::Tcp`].
    pub out: BTreeSet<Way>,
    /// Ways that the other reaches this member by, having opened them itself.
    pub back: BTreeSet<Way>,
    /// Ways that the other tried in vain.
    pub back_closed: BTreeSet<Way>,
    /// By how many milliseconds the other's clock is ahead, and by how many that may be wrong.
    pub clock: Option<(i64, u64)>,
    /// The other's release.
    pub version: Option<String>,
}

/// Who is asked, and where it finds who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachSpec {
    /// The other's gossip address.
    pub to: SocketAddr,
    /// This member's.
    pub advertise: SocketAddr,
    /// Of this member, to be asked whether it works.
    pub data_path: Option<IpAddr>,
    /// Whether this member is a manager, so that its port is to be tried.
    pub manager: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Word {
    Ask {
        nonce: u64,
        by: Way,
        advertise: SocketAddr,
        data_path: Option<IpAddr>,
        manager: bool,
    },
    Told {
        nonce: u64,
        asked_by: Way,
        by: Option<Way>,
        tried: BTreeMap<Way, bool>,
        clock: u64,
        version: String,
    },
}

/// What asks and answers, beside the core.
pub(crate) struct Reach {
    /// Weak, so that it is closed when the driver ends.
    udp: Weak<UdpSocket>,
    waiting: Mutex<BTreeMap<u64, mpsc::Sender<(Word, Instant)>>>,
    slots: Arc<Semaphore>,
}

/// Whether an opened message is one of these and not the core's.
pub(crate) fn is_word(bytes: &[u8]) -> bool {
    bytes.first() == Some(&KIND)
}

impl Reach {
    pub(crate) fn new(udp: &Arc<UdpSocket>) -> Self {
        Self { udp: Arc::downgrade(udp), waiting: Mutex::default(), slots: Arc::new(Semaphore::new(SLOTS)) }
    }

    /// Takes a message; `from` is absent if it came by TCP. `own` is the address of this member's data path.
    pub(crate) fn take(
        &self,
        bytes: &[u8],
        from: Option<SocketAddr>,
        own: Option<IpAddr>,
        sealer: Arc<Sealer>,
    ) {
        let Some(Ok(word)) = bytes.get(1..).map(postcard::from_bytes::<Word>) else {
            return trace!("malformed question of reach");
        };
        match word {
            Word::Ask { .. } => {
                let (Ok(slot), Some(udp)) = (self.slots.clone().try_acquire_owned(), self.udp.upgrade())
                else {
                    return;
                };
                tokio::spawn(async move {
                    answer(word, from, own, &udp, &sealer).await;
                    drop(slot);
                });
            }
            Word::Told { nonce, .. } => {
                let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                // Who asked may have ceased to wait.
                if let Some(queue) = waiting.get(&nonce) {
                    let _ = queue.try_send((word, Instant::now()));
                }
            }
        }
    }

    /// Asks, and waits until everything is known or some seconds are over.
    pub(crate) async fn ask(&self, spec: &ReachSpec, sealer: Arc<Sealer>) -> Reached {
        let nonce: u64 = rand::random();
        let (queue, answers) = mpsc::channel(32);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(nonce, queue);
        let begun = Instant::now();
        let word = |by| Word::Ask {
            nonce,
            by,
            advertise: spec.advertise,
            data_path: spec.data_path,
            manager: spec.manager,
        };
        let by_udp = async {
            for pause in AGAIN {
                sleep(pause).await;
                if let Some(udp) = self.udp.upgrade() {
                    send(&udp, spec.to, &word(Way::Udp), &sealer).await;
                }
            }
        };
        let question = word(Way::Tcp);
        let by_tcp = say(spec.to, &question, &sealer);
        let asking = async {
            tokio::join!(by_udp, by_tcp);
            std::future::pending::<std::convert::Infallible>().await
        };
        let reached = tokio::select! {
            reached = gather(answers, spec, begun) => reached,
            never = asking => match never {},
        };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&nonce);
        reached
    }
}

async fn gather(mut answers: mpsc::Receiver<(Word, Instant)>, spec: &ReachSpec, begun: Instant) -> Reached {
    let mut reached = Reached::default();
    let until = begun + AGAIN.iter().sum::<Duration>() + WAIT;
    let tried = usize::from(spec.data_path.is_some()) + usize::from(spec.manager);
    // What is open on both ways is known at once; what is not may come late.
    while reached.out.len() < 2
        || ![Way::Udp, Way::Tcp].iter().all(|way| reached.back.contains(way))
        || reached.back.union(&reached.back_closed).count() < 2 + tried
    {
        let Ok(Some((Word::Told { asked_by, by, tried, clock, version, .. }, at))) =
            timeout_at(until, answers.recv()).await
        else {
            break;
        };
        reached.out.insert(asked_by);
        reached.back.extend(by);
        for (way, open) in tried {
            if open { &mut reached.back } else { &mut reached.back_closed }.insert(way);
        }
        // Of the answer that was quickest.
        let took = u64::try_from((at - begun).as_millis()).unwrap_or(u64::MAX);
        if reached.clock.is_none_or(|(_, error)| took < error) && by.is_none() {
            let here = now_millis().saturating_sub(at.elapsed().as_millis() as u64 + took / 2);
            reached.clock = Some((clock.cast_signed().wrapping_sub(here.cast_signed()), took));
        }
        reached.version = Some(version);
    }
    let open = reached.back.clone();
    reached.back_closed.retain(|way| !open.contains(way));
    reached
}

/// Answers a question on the way that it came, opens the ways back, and tells of the others that it tried.
async fn answer(ask: Word, from: Option<SocketAddr>, own: Option<IpAddr>, udp: &UdpSocket, sealer: &Sealer) {
    let Word::Ask { nonce, by: asked_by, advertise, data_path, manager } = ask else { return };
    let told = |by, tried| Word::Told {
        nonce,
        asked_by,
        by,
        tried,
        clock: now_millis(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    // What was asked by UDP comes back at once; TCP has no way back but that which is opened.
    let to = from.unwrap_or(advertise);
    send(udp, to, &told(None, BTreeMap::new()), sealer).await;
    let unasked = async {
        if let Ok(fresh) = UdpSocket::bind(any_of(advertise)).await {
            for pause in AGAIN {
                sleep(pause).await;
                send(&fresh, advertise, &told(Some(Way::Udp), BTreeMap::new()), sealer).await;
            }
        }
    };
    let word = told(Some(Way::Tcp), BTreeMap::new());
    let stream = timeout(OPEN, say(advertise, &word, sealer));
    let data_path = async {
        let (own, other) = (own?, data_path?);
        Some((Way::DataPath, data_path_answers(own, SocketAddr::new(other, VXLAN_PORT)).await))
    };
    let manager = async {
        let there = SocketAddr::new(advertise.ip(), MANAGER_PORT);
        manager.then_some(())?;
        let connected = timeout(OPEN, TcpStream::connect(there)).await;
        Some((Way::Manager, matches!(connected, Ok(Ok(_)))))
    };
    let ((), _, data_path, manager) = tokio::join!(unasked, stream, data_path, manager);
    let word = told(None, data_path.into_iter().chain(manager).collect());
    send(udp, to, &word, sealer).await;
    let _ = timeout(OPEN, say(advertise, &word, sealer)).await;
}

async fn data_path_answers(own: IpAddr, to: SocketAddr) -> bool {
    let mut questions = Questions::default();
    questions.ask_from(own);
    for _ in 0..AGAIN.len() {
        let nonce = rand::random();
        questions.ask(to, nonce).await;
        let answered = async { while questions.answer().await.1 != nonce {} };
        if timeout(OPEN / 3, answered).await.is_ok() {
            return true;
        }
    }
    false
}

async fn send(udp: &UdpSocket, to: SocketAddr, word: &Word, sealer: &Sealer) {
    let Some(Ok(sealed)) = encoded(word).map(|bytes| sealer.seal(&bytes, DATAGRAM)) else { return };
    if let Err(error) = udp.send_to(&sealed, to).await {
        trace!(%to, %error, "question of reach not sent");
    }
}

async fn say(to: SocketAddr, word: &Word, sealer: &Sealer) {
    let Some(bytes) = encoded(word) else { return };
    let said = async { stream::write(TcpStream::connect(to).await?, sealer, &bytes).await };
    if let Ok(Err(error)) = timeout(WAIT, said).await {
        trace!(%to, %error, "question of reach not said");
    }
}

fn encoded(word: &Word) -> Option<Vec<u8>> {
    postcard::to_extend(word, vec![KIND]).ok()
}

fn any_of(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

fn now_millis() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
