//! Whether nodes are there: what gossip says of them, and their sessions with this manager, taken together.

use std::time::Duration;

/// What gossip says of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It answers.
    Alive,
    /// Its daemon is gone, its data path answers.
    Unattended,
    /// It does not answer.
    Dead,
    /// It said that it leaves.
    Left,
    /// Nothing: gossip has just begun, or is not sure.
    Nothing,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeStatus {
    /// It is.
    Ready,
    /// Its data path is, without its daemon.
    Unattended,
    /// It is not.
    Down,
    /// It left the cluster, which has not heard of it yet.
    Left,
    /// Nobody can tell.
    Unknown,
}

impl NodeStatus {
    /// From gossip, from whether the node has a session here, and from whether this manager is with a majority of them: one
    /// that is cut off hears of nobody, which says nothing of the others.
    pub fn of(heard: Heard, in_session: bool, with_majority: bool) -> Self {
        match heard {
            Heard::Alive => Self::Ready,
            _ if in_session => Self::Ready,
            Heard::Left => Self::Left,
            Heard::Unattended => Self::Unattended,
            Heard::Dead if with_majority => Self::Down,
            Heard::Dead | Heard::Nothing => Self::Unknown,
        }
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unattended => "unattended",
            Self::Down => "down",
            Self::Left => "left",
            Self::Unknown => "unknown",
        }
    }

    /// Whether something of the node may still run, so that it is taken out of the cluster by force only.
    pub const fn may_run(self) -> bool {
        matches!(self, Self::Ready | Self::Unattended)
    }
}

/// The time since the machine booted, time in which it slept included. Nobody can set it.
pub(crate) fn boot_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gossip_and_session_are_taken_together() {
        use Heard as H;
        use NodeStatus as S;
        for (heard, in_session, with_majority, status) in [
            (H::Alive, false, false, S::Ready),
            (H::Dead, true, true, S::Ready),
            (H::Nothing, true, true, S::Ready),
            (H::Dead, false, true, S::Down),
            (H::Dead, false, false, S::Unknown),
            (H::Nothing, false, true, S::Unknown),
            (H::Left, false, true, S::Left),
            (H::Unattended, false, true, S::Unattended),
        ] {
            assert_eq!(NodeStatus::of(heard, in_session, with_majority), status, "{heard:?}");
        }
        assert!(S::Ready.may_run() && S::Unattended.may_run());
        assert!(!S::Down.may_run() && !S::Unknown.may_run() && !S::Left.may_run());
    }
}
