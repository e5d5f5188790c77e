//! What the reasons of drops mean, and what to do about them.

/// In a sentence, by the reason's name.
pub(super) fn meaning(reason: &str) -> &'static str {
    match reason {
        "malformed" => "the packet contradicts itself",
        "unknown-sender" => {
            "the sending node is no member that this node knows; compare `meshctl node ls` on both, they may not have heard of each other yet"
        }
        "unknown-vni" => "this node has no task on that network; it may have ended a moment ago",
        "forged-source" => {
            "the sending node is not known here to have a task with the source address; gossip may be behind (`meshctl debug gossip`)"
        }
        "spoofed-source" => "the source address is not the task's own on this interface",
        "no-endpoint" => {
            "no task and no service of the network has the destination address: a task that ended, or one that this node has not heard of"
        }
        "stale-endpoint" => "the task that was chosen is gone; its end has not been heard of everywhere",
        "no-backend" => "the service has no task that takes flows; see `meshctl service ps`",
        "internal-network" => {
            "the network is internal, which has no way out; put the task on another network too"
        }
        "too-big" => "the packet is larger than the underlay carries, and may not be cut",
        "unsupported-protocol" => {
            "the data path does not carry it: neither TCP, UDP, SCTP nor ICMP, or multicast"
        }
        "fragment" => "a fragment whose first part has not been seen",
        "unexpected-return" => "an answer to nothing that this node has sent",
        "helper-failed" => "the kernel refused to change the packet: out of memory most likely",
        "flow-table-full" => "no room for one more flow; see `meshctl status`",
        "no-free-port" => "too many clients use the same source port towards this task",
        _ => "no explanation is known to this release",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_words() {
        let unknown = meaning("");
        for reason in mesh_lb::DropReason::ALL {
            assert_ne!(meaning(reason.as_str()), unknown, "{reason:?}");
        }
    }
}
