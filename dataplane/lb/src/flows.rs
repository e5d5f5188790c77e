//! Which established flows are over: the decision, without clocks and maps.

use std::time::Duration;

use mesh_abi::{ChoiceValue, FlowKey, ReverseValue, flow_state};

/// How long an established flow may be silent before it is forgotten, by what it is and what was seen of it. New flows
/// need none: the oldest of them make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowTimeouts {
    /// TCP, open in both directions. 5 days by default (RFC 5382, section 5, asks for two hours and four minutes at least).
    pub tcp_established: Duration,
    /// TCP, closed by one side. 1 hour by default.
    pub tcp_half_closed: Duration,
    /// TCP, closed by both sides or reset; also any flow whose task is gone. 10 s by default.
    pub tcp_closing: Duration,
    /// UDP. 180 s by default (RFC 4787, section 4.3, asks for two minutes at least).
    pub udp: Duration,
    /// SCTP. 210 s by default: seven heartbeats (RFC 9260, section 16).
    pub sctp: Duration,
    /// Everything else, ICMP echo for one. 60 s by default.
    pub other: Duration,
}

impl Default for FlowTimeouts {
    fn default() -> Self {
        Self {
            tcp_established: Duration::from_secs(5 * 24 * 3600),
            tcp_half_closed: Duration::from_secs(3600),
            tcp_closing: Duration::from_secs(10),
            udp: Duration::from_secs(180),
            sctp: Duration::from_secs(210),
            other: Duration::from_secs(60),
        }
    }
}

/// How many flows the data path knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flows {
    /// Flows that were given a backend on this node.
    pub choices: FlowCount,
    /// Flows whose replies are translated on this node.
    pub reverse: FlowCount,
}

/// Flows by how sure it is that there is somebody at both ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowCount {
    /// Only one side has spoken, or nobody has answered an answer yet, or that was just now; also what ended before it had
    /// lived for a second. The longest unused make room for newer ones.
    pub new: u64,
    /// Both sides have spoken, the first again, and that more than a moment ago. Only time or their end removes them.
    pub established: u64,
}

/// What one call of [`crate::DataPath::age_flows`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Aged {
    /// Flows looked at.
    pub seen: usize,
    /// Flows forgotten because they were silent too long, or closed.
    pub expired: usize,
    /// Flows forgotten because the task at their end is gone.
    pub orphaned: usize,
    /// Silent connections moved to where only time removes them.
    pub moved: usize,
    /// Whether the walk came to the end of all flows; the next call begins anew.
    pub finished: bool,
}

/// What a flow's entry says about its age.
pub(crate) trait Tracked {
    /// Time of the last packet in nanoseconds of the kernel's monotonic clock.
    fn last_seen(&self) -> u64;
    /// Bits of [`flow_state`].
    fn state(&self) -> u8;
}

impl Tracked for ChoiceValue {
    fn last_seen(&self) -> u64 {
        self.last_seen
    }

    fn state(&self) -> u8 {
        self.state
    }
}

impl Tracked for ReverseValue {
    fn last_seen(&self) -> u64 {
        self.last_seen
    }

    fn state(&self) -> u8 {
        self.state
    }
}

/// Why a flow is to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Expired,
    Orphaned,
}

/// Whether a flow is over at `now`, and why. `orphan`: there is no task at its end any more.
pub(crate) fn over(
    timeouts: &FlowTimeouts,
    key: &FlowKey,
    flow: &impl Tracked,
    orphan: bool,
    now: u64,
) -> Option<Over> {
    // A packet may be newer than the clock was read.
    let silent = Duration::from_nanos(now.saturating_sub(flow.last_seen()));
    // Packets on their way shall still find out that the task is gone, so that the client is told.
    if orphan && silent >= timeouts.tcp_closing {
        return Some(Over::Orphaned);
    }
    (silent >= timeout(timeouts, key.protocol, flow.state())).then_some(Over::Expired)
}

fn timeout(timeouts: &FlowTimeouts, protocol: u8, state: u8) -> Duration {
    match protocol {
        TCP if closed(state) => timeouts.tcp_closing,
        // Of the other side nothing is seen here: most likely it has closed, too. Who still receives acknowledges that.
        TCP if state & FINS != 0 && state & flow_state::DIRECT != 0 => {
            timeouts.tcp_half_closed.min(HALF_SEEN)
        }
        TCP if state & FINS != 0 => timeouts.tcp_half_closed,
        TCP => timeouts.tcp_established,
        UDP => timeouts.udp,
        SCTP => timeouts.sctp,
        _ => timeouts.other,
    }
}

fn closed(state: u8) -> bool {
    state & flow_state::RESET != 0 || state & FINS == FINS
}

/// Whether a flow of the first stage is to be moved to the second: an open connection of which the programs, which else do
/// that with its next packet, have seen none for a while.
pub(crate) fn settled(key: &FlowKey, flow: &impl Tracked, now: u64) -> bool {
    let open = flow.state() & (flow_state::RESET | FINS) == 0;
    matches!(key.protocol, TCP | SCTP)
        && is_confirmed(flow)
        && open
        && now.saturating_sub(flow.last_seen()) > SETTLED.as_nanos() as u64
}

/// Whether both sides of a flow are known to be there.
pub(crate) fn is_confirmed(flow: &impl Tracked) -> bool {
    flow.state() & flow_state::CONFIRMED != 0
}

/// Whether a flow would be missed if its task ended at `now`: an open connection, or packets within the last
/// [`IN_USE`] where there are no connections.
pub(crate) fn in_use(key: &FlowKey, flow: &impl Tracked, now: u64) -> bool {
    match key.protocol {
        TCP => !closed(flow.state()),
        _ => now.saturating_sub(flow.last_seen()) < IN_USE.as_nanos() as u64,
    }
}

const IN_USE: Duration = Duration::from_secs(10);
/// Twice what the programs wait for.
const SETTLED: Duration = Duration::from_secs(2);
/// Twice the longest life of a segment on the way (RFC 9293, section 3.4.2, takes two minutes for that; systems take less).
const HALF_SEEN: Duration = Duration::from_secs(120);
const FINS: u8 = flow_state::CLIENT_FIN | flow_state::SERVER_FIN;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000_000_000_000;
    const OPEN: u8 = flow_state::ANSWERED | flow_state::CONFIRMED;

    fn silent(secs: u64, state: u8) -> ChoiceValue {
        let last_seen = NOW - Duration::from_secs(secs).as_nanos() as u64;
        ChoiceValue { last_seen, state, ..ChoiceValue::default() }
    }

    fn of(protocol: u8) -> FlowKey {
        FlowKey { protocol, ..FlowKey::default() }
    }

    #[test]
    fn each_state_has_its_time() {
        let timeouts = FlowTimeouts::default();
        let day = 24 * 3600;
        for (protocol, state, last, first_over) in [
            (TCP, OPEN, 5 * day - 1, 5 * day),
            (TCP, OPEN | flow_state::DIRECT, 5 * day - 1, 5 * day),
            (TCP, OPEN | flow_state::CLIENT_FIN, 3599, 3600),
            (TCP, OPEN | flow_state::SERVER_FIN, 3599, 3600),
            (TCP, OPEN | flow_state::DIRECT | flow_state::CLIENT_FIN, 119, 120),
            (TCP, OPEN | FINS, 9, 10),
            (TCP, OPEN | flow_state::RESET, 9, 10),
            (UDP, OPEN, 179, 180),
            (SCTP, OPEN, 209, 210),
            (1, OPEN, 59, 60),
        ] {
            let over = |secs| over(&timeouts, &of(protocol), &silent(secs, state), false, NOW);
            assert_eq!((over(last), over(first_over)), (None, Some(Over::Expired)), "{protocol} {state:b}");
        }
    }

    #[test]
    fn a_flow_without_a_task_goes_soon_but_not_at_once() {
        let timeouts = FlowTimeouts::default();
        let over = |secs| over(&timeouts, &of(TCP), &silent(secs, OPEN), true, NOW);
        assert_eq!((over(0), over(9), over(10)), (None, None, Some(Over::Orphaned)));
    }

    #[test]
    fn a_packet_newer_than_the_clock_is_no_old_one() {
        let mut flow = silent(0, OPEN);
        flow.last_seen = NOW + 5;
        assert_eq!(over(&FlowTimeouts::default(), &of(1), &flow, true, NOW), None);
    }

    #[test]
    fn open_connections_that_are_silent_are_kept() {
        let settled = |protocol, secs, state| settled(&of(protocol), &silent(secs, state), NOW);
        assert!(settled(TCP, 3, OPEN) && settled(SCTP, 100, OPEN | flow_state::DIRECT));
        assert!(!settled(TCP, 2, OPEN), "its next packet does it");
        assert!(!settled(TCP, 3, flow_state::ANSWERED), "nobody has agreed to the answer");
        for state in [flow_state::CLIENT_FIN, flow_state::SERVER_FIN, flow_state::RESET] {
            assert!(!settled(TCP, 3, OPEN | state));
        }
        assert!(!settled(UDP, 3, OPEN), "datagrams are no connection");
    }

    #[test]
    fn what_a_task_still_has_to_do() {
        let used = |protocol, secs, state| in_use(&of(protocol), &silent(secs, state), NOW);
        assert!(used(TCP, 100_000, OPEN) && used(TCP, 0, OPEN | flow_state::CLIENT_FIN));
        assert!(!used(TCP, 0, OPEN | FINS) && !used(TCP, 0, OPEN | flow_state::RESET));
        assert!(used(UDP, 9, OPEN) && !used(UDP, 10, OPEN));
    }
}
