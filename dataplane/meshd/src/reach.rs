//! By which ways this node and others reach each other, for people.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use mesh_agent::{Agent, PingError, PingSpec, ReachedNode, Way, one_line};
use mesh_api::v1;
use mesh_types::{LookupError, NodeId};
use tonic::Status;

use crate::config::Config;

/// How long an answer is waited for, unless it is said; and at most.
const WAIT: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(10);

/// Tries the ways to the nodes that are named, else to all others.
pub async fn reach(
    config: &Config,
    agent: &Agent,
    certificate_ends: SystemTime,
    request: &v1::ReachRequest,
) -> Result<v1::ReachResponse, Status> {
    let view = agent.view();
    let named = request.nodes.iter().map(|reference| view.node(reference).map(|node| node.id));
    let named: BTreeSet<NodeId> =
        named.collect::<Result<_, LookupError>>().map_err(|e| Status::not_found(e.to_string()))?;
    let wanted = if named.is_empty() { view.nodes.keys().copied().collect() } else { named };
    let found = agent.reach(&wanted).await;
    let expires = certificate_ends.duration_since(SystemTime::UNIX_EPOCH);
    Ok(v1::ReachResponse {
        nodes: found.iter().map(|(node, reached)| message(*node, reached)).collect(),
        certificate_expires: expires.map_or(0, |since| since.as_secs()),
        state_dir: config.state_dir.display().to_string(),
        bpf_dir: config.bpf_dir.display().to_string(),
    })
}

/// Asks once.
pub async fn ping(agent: &Agent, request: v1::PingRequest) -> Result<v1::PingResponse, Status> {
    let wait = match request.wait_millis {
        0 => WAIT,
        millis => Duration::from_millis(millis.into()).min(LONGEST),
    };
    let size = request.packet_size.min(u16::MAX.into());
    let spec = PingSpec { to: request.to, from: request.from, size, wait, ipv6: request.ipv6 };
    let pinged = agent.ping(&spec).await.map_err(|error| {
        let text = one_line(&error);
        match error {
            PingError::Unknown(_) => Status::not_found(text),
            PingError::Service(_) | PingError::Ambiguous(_) | PingError::Own(_) | PingError::NoAddress(_) => {
                Status::invalid_argument(text)
            }
            _ => Status::failed_precondition(text),
        }
    })?;
    Ok(v1::PingResponse {
        name: pinged.name,
        path: pinged.path,
        address: pinged.address.to_string(),
        answered: pinged.answered.is_some(),
        micros: pinged.answered.map_or(0, |took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
        too_large: pinged.too_large,
    })
}

fn message(node: NodeId, found: &ReachedNode) -> v1::NodeReach {
    let ReachedNode { reached, tried, tried_back } = found;
    let words =
        |ways: &mut dyn Iterator<Item = &Way>| ways.map(|way| word(*way).to_owned()).collect::<Vec<_>>();
    let answered = reached.version.is_some();
    v1::NodeReach {
        node_id: node.to_string(),
        open: words(&mut tried.intersection(&reached.out)),
        closed: words(&mut tried.difference(&reached.out)),
        open_back: words(&mut reached.back.iter()),
        closed_back: if answered { words(&mut tried_back.difference(&reached.back)) } else { Vec::new() },
        clock_known: reached.clock.is_some(),
        clock_ahead_millis: reached.clock.map_or(0, |(ahead, _)| ahead),
        clock_error_millis: reached.clock.map_or(0, |(_, error)| error),
        version: reached.version.clone().unwrap_or_default(),
    }
}

fn word(way: Way) -> &'static str {
    match way {
        Way::Udp => "gossip-udp",
        Way::Tcp => "gossip-tcp",
        Way::DataPath => "data-path",
        Way::Manager => "manager",
    }
}
