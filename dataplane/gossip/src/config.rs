//! Settings, checked before any side effect.

use std::{net::SocketAddr, time::Duration};

use mesh_types::{ClusterId, NodeId};
use thiserror::Error;

/// Keys that seal gossip; all are accepted, the first is sent with.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRing(Vec<[u8; 32]>);

/// Why keys are no ring. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyRingError {
    /// No key to send with.
    #[error("a gossip key ring needs at least one key")]
    Empty,
    /// So many that looking for one would cost.
    #[error("a gossip key ring has at most {max} keys, this has {0}", max = KeyRing::MAX)]
    TooMany(usize),
}

impl KeyRing {
    /// Keys that a ring may have.
    pub const MAX: usize = 3;

    /// A ring of AES-256 keys, the first one to send with.
    pub fn new(keys: Vec<[u8; 32]>) -> Result<Self, KeyRingError> {
        match keys.len() {
            0 => Err(KeyRingError::Empty),
            count if count > Self::MAX => Err(KeyRingError::TooMany(count)),
            _ => Ok(Self(keys)),
        }
    }

    /// The keys, the first one to send with.
    pub fn keys(&self) -> &[[u8; 32]] {
        &self.0
    }
}

impl std::fmt::Debug for KeyRing {
    /// Tells how many there are, never what they are.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyRing({} keys)", self.0.len())
    }
}

/// How fast things happen. The defaults tell of a dead node within 3 s in clusters of any size (in a few of a
/// thousand deaths in large ones a little later), and forgive a node that stands still for a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// One member is probed in each of these; default 250 ms. Shorter finds the dead sooner and costs packets.
    pub probe_period: Duration,
    /// A probed member is asked through others after this; default 100 ms. Less than half of `probe_period`.
    pub probe_rtt: Duration,
    /// A suspect is down after this; default 1.4 s. Longer forgives more.
    pub suspect_timeout: Duration,
    /// Membership news is sent on in this rhythm, and relayed changes twice as often; default 100 ms.
    pub gossip_interval: Duration,
    /// Tables are compared with one member per table in about this rhythm; default 5 s.
    pub sync_interval: Duration,
    /// An unacknowledged change is sent again after this, then after twice that, and so on; default 40 ms.
    pub resend: Duration,
    /// A deleted entry is remembered for this long; default 60 s.
    pub tombstone_ttl: Duration,
    /// Entries of a member that is down are kept, unseen, for this long; default 10 min.
    pub down_retention: Duration,
    /// The longest pause between attempts to reach a member that is not alive; default 4 s.
    pub retry_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_millis(250),
            probe_rtt: Duration::from_millis(100),
            suspect_timeout: Duration::from_millis(1400),
            gossip_interval: Duration::from_millis(100),
            sync_interval: Duration::from_secs(5),
            resend: Duration::from_millis(40),
            tombstone_ttl: Duration::from_secs(60),
            down_retention: Duration::from_secs(600),
            retry_max: Duration::from_secs(4),
        }
    }
}

impl Timing {
    /// Whether the values fit together.
    pub fn check(&self) -> Result<(), GossipError> {
        let fields = [
            ("probe_period", self.probe_period),
            ("probe_rtt", self.probe_rtt),
            ("suspect_timeout", self.suspect_timeout),
            ("gossip_interval", self.gossip_interval),
            ("sync_interval", self.sync_interval),
            ("resend", self.resend),
            ("tombstone_ttl", self.tombstone_ttl),
            ("down_retention", self.down_retention),
            ("retry_max", self.retry_max),
        ];
        for (field, value) in fields {
            if value < Duration::from_millis(1) {
                return Err(GossipError::Timing { field, problem: "is shorter than 1 ms" });
            }
        }
        if self.probe_rtt * 2 > self.probe_period {
            return Err(GossipError::Timing { field: "probe_rtt", problem: "is over half of probe_period" });
        }
        Ok(())
    }
}

/// How a node gossips.
#[derive(Debug, Clone)]
pub struct GossipConfig {
    /// This node.
    pub node: NodeId,
    /// Its cluster; packets of others are refused.
    pub cluster: ClusterId,
    /// Where to listen, UDP and TCP; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Where others reach this node; port 0 stands for the bound one.
    pub advertise: SocketAddr,
    /// What to seal with.
    pub keys: KeyRing,
    /// Grows from start to start of this node, as the wall clock's milliseconds do. Should it not, the node learns
    /// so from the others and goes on from what they know.
    pub incarnation: u64,
    /// How fast.
    pub timing: Timing,
}

/// Why gossip does not start. Nothing is left behind.
#[derive(Debug, Error)]
pub enum GossipError {
    /// An address and port cannot be listened on.
    #[error("cannot listen for gossip on {transport} {address}")]
    Bind {
        /// `UDP` or `TCP`.
        transport: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Others could not reach the address.
    #[error("cannot advertise {0}: it is no address that others can send to")]
    Advertise(SocketAddr),
    /// Two settings contradict each other, or one makes no sense.
    #[error("gossip timing: {field} {problem}")]
    Timing {
        /// The setting.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}
