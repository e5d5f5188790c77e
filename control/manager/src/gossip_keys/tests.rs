use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mesh_store::{MAX_GOSSIP_ROTATION, MIN_GOSSIP_ROTATION};
use mesh_types::{Availability, Role};
use proptest::prelude::*;

use super::*;
use crate::testing::{NODE, state as cluster};

const SECOND: NodeId = NodeId::from_u128(2);
const HALF_A_DAY: u64 = 12 * 3600;

fn node(number: u128) -> Node {
    let address = [127, 0, 0, 1].into();
    Node {
        id: NodeId::from_u128(number),
        name: format!("n{number}").parse().unwrap(),
        role: Role::Worker,
        advertise_addr: address,
        data_path_addr: address,
        availability: Availability::Active,
        labels: BTreeMap::new(),
        joined_at: 0,
        version: 0,
    }
}

fn two() -> State {
    let mut state = cluster();
    state.apply(Command::AddNode(node(2))).unwrap();
    state
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ready(_: NodeId) -> NodeStatus {
    NodeStatus::Ready
}

/// Keys are numbered, so that they differ.
fn take(state: &mut State, step: Step, number: u8, now: u64) {
    let after = state.gossip_keys().unwrap().version;
    let command = match step {
        Step::Rotate => Command::RotateGossipKeys { fresh: Sensitive([number; 32]), after },
        Step::Advance => Command::StepGossipKeys { after, now },
    };
    state.apply(command).unwrap();
}

fn has(state: &mut State, nodes: &[NodeId]) {
    let version = state.gossip_keys().unwrap().version;
    state.apply(Command::GossipKeysInUse { version, nodes: nodes.iter().copied().collect() }).unwrap();
}

#[test]
fn a_key_is_replaced_on_schedule_when_everybody_can_follow() {
    let (mut state, mut rotation) = (two(), Rotation::default());
    assert_eq!(rotation.next(&state, ready, seconds(1), HALF_A_DAY - 1), None);
    assert_eq!(rotation.next(&state, ready, seconds(1), HALF_A_DAY), Some(Step::Rotate));
    take(&mut state, Step::Rotate, 1, 0);
    assert_eq!(rotation.next(&state, ready, seconds(2), HALF_A_DAY), None);
    has(&mut state, &[NODE]);
    assert_eq!(rotation.next(&state, ready, seconds(3), HALF_A_DAY), None, "the second cannot read it yet");
    has(&mut state, &[SECOND]);
    assert_eq!(rotation.next(&state, ready, seconds(4), HALF_A_DAY), Some(Step::Advance));
    take(&mut state, Step::Advance, 0, HALF_A_DAY);
    has(&mut state, &[NODE, SECOND]);
    assert_eq!(rotation.next(&state, ready, seconds(5), HALF_A_DAY), None, "something is on its way");
    assert_eq!(rotation.next(&state, ready, seconds(11), HALF_A_DAY), Some(Step::Advance));
    take(&mut state, Step::Advance, 0, HALF_A_DAY);
    assert_eq!(rotation.next(&state, ready, seconds(12), HALF_A_DAY + 5), None);
    assert_eq!(rotation.next(&state, ready, seconds(12), 2 * HALF_A_DAY), Some(Step::Rotate));
}

/// Whoever leads has a clock that is years off, and is set right again.
#[test]
fn each_jump_of_the_clock_costs_one_key() {
    let (mut state, mut rotation) = (two(), Rotation::default());
    let mut now = 0;
    let mut rotations = |state: &mut State, wall: u64| {
        let mut count = 0;
        for _ in 0..100 {
            now += 2;
            match rotation.next(state, ready, seconds(now), wall) {
                Some(Step::Rotate) => {
                    count += 1;
                    take(state, Step::Rotate, u8::try_from(now % 251).unwrap(), wall);
                }
                Some(Step::Advance) => take(state, Step::Advance, 0, wall),
                None => {}
            }
            has(state, &[NODE, SECOND]);
        }
        count
    };
    let years = 3 * 365 * 24 * 3600;
    assert_eq!(rotations(&mut state, 5), 0);
    assert_eq!(rotations(&mut state, years), 1);
    assert_eq!(rotations(&mut state, years + HALF_A_DAY / 2), 0);
    assert_eq!(rotations(&mut state, 10), 1);
    assert_eq!(rotations(&mut state, HALF_A_DAY), 0);
    assert_eq!(rotations(&mut state, 11 + HALF_A_DAY), 1, "the schedule goes on from there");
}

#[test]
fn nobody_waits_for_the_dead_and_not_for_ever_for_the_deaf() {
    use NodeStatus as S;
    let (mut state, mut rotation) = (two(), Rotation::default());
    take(&mut state, Step::Rotate, 1, 0);
    has(&mut state, &[NODE]);
    let with = |status| move |node| if node == SECOND { status } else { S::Ready };
    for (status, waits) in
        [(S::Ready, true), (S::Unknown, true), (S::Down, false), (S::Left, false), (S::Unattended, false)]
    {
        let step = rotation.next(&state, with(status), seconds(9), 0);
        assert_eq!(step.is_none(), waits, "{status:?}");
    }
    let late = 9 + PATIENCE.as_secs();
    assert_eq!(rotation.next(&state, ready, seconds(late - 1), 0), None);
    assert_eq!(rotation.next(&state, ready, seconds(late), 0), Some(Step::Advance));
    rotation.forget();
    assert_eq!(rotation.next(&state, ready, seconds(late), 0), None, "a new leader");
}

#[test]
fn a_removed_node_has_the_ring_replaced_at_once_and_soon() {
    let (mut state, mut rotation) = (two(), Rotation::default());
    state.apply(Command::AddNode(node(3))).unwrap();
    state.apply(Command::SetGossipRotation { secs: 0 }).unwrap();
    assert_eq!(rotation.next(&state, ready, seconds(1), u64::MAX), None, "no schedule");
    for (number, phase) in [(2, GossipPhase::Settled), (3, GossipPhase::Spreading)] {
        assert_eq!(state.gossip_keys().unwrap().phase, phase);
        state.apply(Command::RemoveNode(NodeId::from_u128(number))).unwrap();
        assert_eq!(rotation.next(&state, ready, seconds(2), 0), Some(Step::Rotate));
        take(&mut state, Step::Rotate, u8::try_from(number).unwrap(), 0);
    }
    assert_eq!(rotation.next(&state, ready, seconds(3), 0), None, "this one itself");
    assert_eq!(rotation.next(&state, ready, seconds(3) + URGENT, 0), Some(Step::Advance));
}

#[test]
fn many_nodes_use_a_key_up_sooner() {
    let mut state = cluster();
    let seconds = |state: &State| {
        let keys = state.gossip_keys().unwrap();
        (0..=MAX_GOSSIP_ROTATION).step_by(60).find(|wall| is_due(keys, state, *wall)).unwrap()
    };
    state.apply(Command::SetGossipRotation { secs: MAX_GOSSIP_ROTATION }).unwrap();
    assert_eq!(seconds(&state), MAX_GOSSIP_ROTATION);
    for number in 2..=1000 {
        state.apply(Command::AddNode(node(number))).unwrap();
    }
    let most = seconds(&state);
    assert!(most > MIN_GOSSIP_ROTATION && most * 1000 * PACKETS <= PER_KEY + 60 * 1000 * PACKETS, "{most}");
}

/// When a ring arrives, of which version it is, and the ring.
type Told = (u64, u64, Vec<[u8; 32]>);

/// Nodes of a model: each has the ring that it was told last.
struct Model {
    state: State,
    rotation: Rotation,
    rings: BTreeMap<NodeId, Vec<[u8; 32]>>,
    /// Rings on their way to nodes, with when they arrive.
    told: BTreeMap<NodeId, VecDeque<Told>>,
    /// Messages on their way: from, to, sealed with, when they arrive.
    sent: Vec<(NodeId, NodeId, [u8; 32], u64)>,
    fresh: u8,
}

impl Model {
    fn tell(&mut self, now: u64, delays: &[u64]) {
        let keys = self.state.gossip_keys().unwrap();
        let (version, ring) = (keys.version, keys.ring.clone());
        for (at, node) in self.state.nodes().enumerate() {
            let queue = self.told.entry(node.id).or_default();
            let arrives = (now + delays[at % delays.len()]).max(queue.back().map_or(0, |last| last.0));
            queue.push_back((arrives, version, ring.clone()));
        }
    }
}

proptest! {
    /// Whatever the order in which nodes get the rings, and whatever is sent meanwhile: nodes that confirm what they have are
    /// able to read each other's messages when these arrive.
    #[test]
    fn no_message_is_lost(
        delays in prop::collection::vec(0u64..40, 3..6),
        acts in prop::collection::vec((0u8..8, 0usize..5, 0usize..5, 0u64..6), 1..400),
    ) {
        let mut state = cluster();
        for number in 2..=5 {
            state.apply(Command::AddNode(node(number))).unwrap();
        }
        let ring = state.gossip_keys().unwrap().ring.clone();
        let rings = state.nodes().map(|node| (node.id, ring.clone())).collect();
        let mut model = Model { state, rotation: Rotation::default(), rings, told: BTreeMap::new(), sent: Vec::new(), fresh: 1 };
        for (now, (act, from, to, delay)) in acts.into_iter().enumerate() {
            let now = now as u64;
            // What arrives now.
            let mut confirmed: BTreeMap<u64, BTreeSet<NodeId>> = BTreeMap::new();
            for (node, queue) in &mut model.told {
                while queue.front().is_some_and(|next| next.0 <= now) {
                    let Some((_, version, ring)) = queue.pop_front() else { break };
                    model.rings.insert(*node, ring);
                    confirmed.entry(version).or_default().insert(*node);
                }
            }
            for (version, nodes) in confirmed {
                model.state.apply(Command::GossipKeysInUse { version, nodes }).unwrap();
            }
            let arrived: Vec<_> = model.sent.extract_if(.., |message| message.3 <= now).collect();
            for (from, to, key, _) in arrived {
                if model.state.node(from).is_some() && let Some(ring) = model.rings.get(&to) {
                    prop_assert!(ring.contains(&key), "{from} to {to}");
                }
            }
            let nodes: Vec<_> = model.state.nodes().map(|node| node.id).collect();
            let (from, to) = (nodes[from % nodes.len()], nodes[to % nodes.len()]);
            match act {
                0 => {
                    let fresh = Sensitive([model.fresh; 32]);
                    let after = model.state.gossip_keys().unwrap().version;
                    if model.state.apply(Command::RotateGossipKeys { fresh, after }).is_ok() {
                        model.fresh = model.fresh.wrapping_add(1).max(1);
                        model.tell(now, &delays);
                    }
                }
                1 if nodes.len() > 2 && to != NODE => {
                    model.state.apply(Command::RemoveNode(to)).unwrap();
                    model.rings.remove(&to);
                    model.told.remove(&to);
                }
                _ => model.sent.push((from, to, model.rings[&from][0], now + delay)),
            }
            if let Some(step) = model.rotation.next(&model.state, ready, seconds(now), now) {
                let number = model.fresh;
                model.fresh = model.fresh.wrapping_add(1).max(1);
                take(&mut model.state, step, number, now);
                model.tell(now, &delays);
            }
        }
    }
}
