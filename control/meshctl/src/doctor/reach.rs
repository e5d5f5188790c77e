//! Ports in both directions, the path's MTU, clocks and releases, node by node.

use mesh_api::v1::{MemberState, NodeReach, PingRequest};
use mesh_types::Node;

use super::{Finding, Told};
use crate::daemon::{Daemon, answer};

/// A skew that people wonder about in logs, and one at which certificates may not be valid yet; in milliseconds.
const ODD: u64 = 2_000;
const HARMFUL: u64 = 60_000;
/// Headers of an outer packet by family (RFC 7348): outer IP, UDP, VXLAN and inner Ethernet.
const OVERHEAD4: u32 = 50;
const OVERHEAD6: u32 = 70;
/// The least that is tried when the path's MTU is sought.
const LEAST: u32 = 100;

/// All of it.
pub async fn check(daemon: &Daemon, told: &Told, findings: &mut Vec<Finding>) {
    let (Some(view), Some(reach)) = (&told.view, &told.reach) else { return };
    for found in &reach.nodes {
        let Some(node) = view.nodes.values().find(|node| node.id.to_string() == found.node_id) else {
            continue;
        };
        let state = told.status.members.iter().find(|member| member.node_id == found.node_id);
        let state = state.map_or(MemberState::Unspecified, |member| member.state());
        if found.version.is_empty()
            && matches!(state, MemberState::Unattended | MemberState::Down | MemberState::Left)
        {
            findings.push(Finding::unchecked(
                format!("ports {}", node.name),
                "its daemon does not answer by any way",
            ));
        } else {
            ports(node, &told.status.node_name, found, findings);
            clock(node, found, findings);
            version(node, &told.status.version, found, findings);
        }
        if matches!(state, MemberState::Down | MemberState::Left) {
            continue;
        }
        findings.push(mtu(daemon, node, told).await);
    }
}

fn ports(node: &Node, here: &str, found: &NodeReach, findings: &mut Vec<Finding>) {
    let (check, there) = (format!("ports {}", node.name), node.advertise_addr);
    let name = &node.name;
    for way in &found.closed {
        let port = port(way);
        findings.push(Finding::failure(
            check.as_str(),
            format!("{port} of {name} ({there}) is not reached from here"),
            format!("let {port} into {name}, and out of {here}: `meshctl doctor` on {name} names a firewall of its own; then what is between them"),
        ));
    }
    for way in &found.closed_back {
        let port = port(way);
        findings.push(Finding::failure(
            check.as_str(),
            format!("{port} of this node ({here}) is not reached from {name} ({there})"),
            format!("let {port} into {here} from all nodes: see a finding `firewall` here, else what is between them"),
        ));
    }
    if found.closed.is_empty() && found.closed_back.is_empty() {
        let both: Vec<&str> = found.open_back.iter().map(|way| port(way)).collect();
        findings.push(Finding::ok(check, format!("reached both ways: {}", both.join(", "))));
    }
}

fn port(way: &str) -> &str {
    match way {
        "gossip-udp" => "7946/udp",
        "gossip-tcp" => "7946/tcp",
        "data-path" => "4789/udp",
        "manager" => "2377/tcp",
        other => other,
    }
}

fn clock(node: &Node, found: &NodeReach, findings: &mut Vec<Finding>) {
    if !found.clock_known {
        return;
    }
    let name = &node.name;
    let check = format!("clock {name}");
    let ahead = found.clock_ahead_millis;
    // What the measurement cannot tell is no fault.
    let sure = ahead.unsigned_abs().saturating_sub(found.clock_error_millis);
    let word = if ahead < 0 { "behind" } else { "ahead" };
    let seconds = ahead.unsigned_abs() as f64 / 1000.0;
    let what = format!("the clock of {name} is {seconds:.1} s {word}");
    let cure = format!("have both follow a time server: `timedatectl set-ntp true` here and on {name}");
    findings.push(match sure {
        HARMFUL.. => {
            Finding::failure(check, format!("{what}: certificates may not be valid yet, or any more"), cure)
        }
        ODD.. => Finding::warning(check, what, cure),
        _ => {
            Finding::ok(check, format!("agrees to {} ms", ahead.unsigned_abs().max(found.clock_error_millis)))
        }
    });
}

fn version(node: &Node, own: &str, found: &NodeReach, findings: &mut Vec<Finding>) {
    if found.version.is_empty() {
        return;
    }
    let check = format!("version {}", node.name);
    findings.push(match found.version == own {
        true => Finding::ok(check, found.version.as_str()),
        false => Finding::warning(
            check,
            format!("{} runs meshd {}, this node {own}", node.name, found.version),
            "install the same release on all nodes, one after the other",
        ),
    });
}

/// Whether the largest packet that tasks make the node send gets to the other's data path and back.
async fn mtu(daemon: &Daemon, node: &Node, told: &Told) -> Finding {
    let check = format!("path {}", node.name);
    let name = &node.name;
    let overhead = if node.data_path_addr.is_ipv4() { OVERHEAD4 } else { OVERHEAD6 };
    let task_mtu = told.status.data_path.as_ref().map_or(0, |path| path.task_mtu);
    let largest = task_mtu + overhead;
    let passes = async |size| {
        // Once lost is no proof.
        for _ in 0..3 {
            let request = PingRequest {
                to: node.id.to_string(),
                packet_size: size,
                wait_millis: 400,
                ..Default::default()
            };
            match answer(daemon.local().ping(request)).await {
                Ok(answer) if answer.answered => return Ok(true),
                Ok(answer) if answer.too_large => return Ok(false),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    };
    let found = async {
        if passes(largest).await? {
            return Ok(Some(largest));
        }
        if !passes(0).await? {
            return Ok(None);
        }
        let (mut good, mut bad) = (LEAST, largest);
        // As near as is of use: each step may take a second.
        while bad - good > 4 {
            let middle = good.midpoint(bad);
            if passes(middle).await? { good = middle } else { bad = middle }
        }
        Ok::<_, crate::failure::Failure>(Some(good))
    };
    match found.await {
        Err(error) => Finding::unchecked(check, error.to_string()),
        Ok(Some(size)) if size == largest => Finding::ok(
            check,
            format!("the data path of {name} answers; packets of {largest} bytes pass both ways"),
        ),
        Ok(None) => Finding::failure(
            check,
            format!(
                "the data path of {name} does not answer at {}: tasks here and there do not reach each other",
                node.data_path_addr
            ),
            format!(
                "let 4789/udp pass both ways between {} and {name}, in cloud security groups too",
                told.status.node_name
            ),
        ),
        Ok(Some(size)) => Finding::failure(
            check,
            format!(
                "packets of more than about {size} bytes do not pass to {name} and back, tasks need {largest}: small packets arrive, large ones hang"
            ),
            format!(
                "give every interface on the way an MTU of {largest} at least, or make tasks' packets smaller: `ip link set {} mtu {size}` on all nodes",
                told.status.data_path.as_ref().map_or("UPLINK", |path| path.uplink.as_str())
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn node() -> Node {
        Node {
            id: mesh_types::NodeId::from_u128(2),
            name: mesh_types::Name::new("n2".to_owned()).unwrap(),
            role: mesh_types::Role::Worker,
            advertise_addr: [192, 0, 2, 2].into(),
            data_path_addr: [192, 0, 2, 2].into(),
            availability: mesh_types::Availability::Active,
            labels: Default::default(),
            joined_at: 0,
            version: 1,
        }
    }

    #[test]
    fn closed_ports_are_named_with_their_direction() {
        let found = NodeReach {
            open: vec!["gossip-tcp".to_owned()],
            closed: vec!["gossip-udp".to_owned()],
            closed_back: vec!["data-path".to_owned()],
            version: "1".to_owned(),
            ..Default::default()
        };
        let mut findings = Vec::new();
        ports(&node(), "n1", &found, &mut findings);
        let texts: Vec<_> = findings.iter().map(|f| f.what.as_str()).collect();
        assert_eq!(
            texts,
            [
                "7946/udp of n2 (192.0.2.2) is not reached from here",
                "4789/udp of this node (n1) is not reached from n2 (192.0.2.2)"
            ]
        );
    }

    #[test]
    fn only_a_skew_beyond_doubt_is_one() {
        let level = |ahead, error| {
            let found = NodeReach {
                clock_known: true,
                clock_ahead_millis: ahead,
                clock_error_millis: error,
                ..Default::default()
            };
            let mut findings = Vec::new();
            clock(&node(), &found, &mut findings);
            findings[0].level
        };
        assert_eq!(level(-1_500, 3), Level::Ok);
        assert_eq!(level(3_000, 2_500), Level::Ok);
        assert_eq!(level(-3_000, 3), Level::Warning);
        assert_eq!(level(90_000, 3), Level::Failure);
    }
}
