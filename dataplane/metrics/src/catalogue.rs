//! Every metric of a node: its name, kind, meaning and labels. `docs/metrics.md` explains them; a test holds it to this.

use crate::text::{Family, Kind};

macro_rules! families {
    ($($name:ident = $kind:ident $text:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $name: Family =
                Family { name: $text, kind: Kind::$kind, help: $help, labels: &[$($label),*] };
        )*

        /// All of them, in the order in which they are written.
        pub static ALL: &[&Family] = &[$(&$name),*];
    };
}

families! {
    BUILD = Info "meshd_build" ["version"] "The daemon's version.";
    NODE = Info "meshd_node" ["node", "node_id", "role"] "The node: its name, id and role; absent while it is in no cluster.";
    READY = Gauge "meshd_ready" [] "1 if the node's data path follows what was decided, as /readyz says.";
    START = Gauge "process_start_time_seconds" [] "When the daemon started, in seconds since 1970-01-01 UTC.";
    CPU = Counter "process_cpu_seconds" [] "Time that the daemon's threads have run.";
    RESIDENT = Gauge "process_resident_memory_bytes" [] "Memory of the daemon that is in RAM.";
    OPEN_FDS = Gauge "process_open_fds" [] "Descriptors that the daemon has open.";
    MAX_FDS = Gauge "process_max_fds" [] "Descriptors that the daemon may have open.";
    TURNED_AWAY = Counter "meshd_metrics_connections_turned_away" [] "Connections to this listener that were one too many.";
    LEFT_OUT = Gauge "meshd_metrics_left_out" ["of"] "Endpoints, services and frontends without series of their own, since there are more than the configuration allows.";

    SESSION = Gauge "meshd_manager_session" [] "1 while the node is in session with a manager.";
    STATE_KNOWN = Gauge "meshd_state_version" [] "Version of the decided state that the node knows.";
    STATE_APPLIED = Gauge "meshd_state_applied_version" [] "Version of the decided state that the data path and the names follow.";
    FAULT = Gauge "meshd_data_path_fault" [] "1 if the last change of the data path failed; the log and meshctl status say why.";
    LEASE = Gauge "meshd_lease_left_seconds" [] "How long the node may give addresses to tasks without a word from a manager.";
    UNCONFIRMED = Gauge "meshd_unconfirmed_addresses" [] "Addresses of tasks that no manager knows of yet.";
    CERTIFICATE = Gauge "meshd_certificate_expiry_timestamp_seconds" [] "When the node's certificate ends, in seconds since 1970-01-01 UTC.";
    CA = Gauge "meshd_ca_certificate_expiry_timestamp_seconds" [] "When the certificate of the cluster's CA ends that the node's is of, in seconds since 1970-01-01 UTC.";
    TASKS = Gauge "meshd_tasks" [] "Tasks of this node.";
    MEMBERS = Gauge "meshd_members" ["state"] "Nodes of the cluster, this one included, by what gossip says of them.";

    DROPPED = Counter "meshd_dropped_packets" ["reason"] "Packets that the data path dropped.";
    PATH = Counter "meshd_path_packets" ["path"] "Packets by the way they went, and what else the programs did.";
    FLOWS = Gauge "meshd_conntrack_flows" ["table"] "Established flows by way of virtual addresses and published ports: from_clients were given a task on this node, to_tasks are served by a task of this node.";
    FLOWS_MAX = Gauge "meshd_conntrack_capacity_flows" ["table"] "Established flows there is room for.";
    MAP_ENTRIES = Gauge "meshd_map_entries" ["map"] "Entries of maps that do not make room by themselves.";
    MAP_CAPACITY = Gauge "meshd_map_capacity_entries" ["map"] "Entries that these maps have room for.";
    PROGRAM_RUNS = Counter "meshd_program_runs" ["program"] "Runs of each program while the kernel counted them; absent if it never did.";
    PROGRAM_TIME = Counter "meshd_program_run_seconds" ["program"] "Time that these runs took.";

    NODE_RX_PACKETS = Counter "meshd_node_receive_packets" [] "Packets to all tasks of this node since the daemon's start.";
    NODE_RX_BYTES = Counter "meshd_node_receive_bytes" [] "Bytes of these.";
    NODE_TX_PACKETS = Counter "meshd_node_transmit_packets" [] "Packets from all tasks of this node since the daemon's start.";
    NODE_TX_BYTES = Counter "meshd_node_transmit_bytes" [] "Bytes of these.";
    NODE_NEW_FLOWS = Counter "meshd_node_new_flows" [] "Flows that began towards tasks of this node, by a virtual address or a published port, since the daemon's start.";

    NETWORK_ENDPOINTS = Gauge "meshd_network_endpoints" ["network"] "Tasks of this node on a network.";
    NETWORK_FLOWS = Gauge "meshd_network_flows" ["network"] "Established flows that they serve.";
    NETWORK_RX_PACKETS = Counter "meshd_network_receive_packets" ["network"] "Packets to them since the daemon's start.";
    NETWORK_RX_BYTES = Counter "meshd_network_receive_bytes" ["network"] "Bytes of these.";
    NETWORK_TX_PACKETS = Counter "meshd_network_transmit_packets" ["network"] "Packets from them since the daemon's start.";
    NETWORK_TX_BYTES = Counter "meshd_network_transmit_bytes" ["network"] "Bytes of these.";
    NETWORK_NEW_FLOWS = Counter "meshd_network_new_flows" ["network"] "Flows that began towards them since the daemon's start.";
    NETWORK_DROPPED = Counter "meshd_network_dropped_packets" ["network", "direction"] "Packets to (receive) and from (transmit) them that were dropped, since the daemon's start.";

    SERVICE_TASKS = Gauge "meshd_service_tasks" ["service"] "Tasks of a service on this node.";
    SERVICE_READY = Gauge "meshd_service_ready_tasks" ["service"] "Of these, how many take new flows.";
    SERVICE_FLOWS = Gauge "meshd_service_flows" ["service"] "Established flows that they serve.";

    FRONTEND_RX_PACKETS = Counter "meshd_frontend_receive_packets" ["service", "frontend", "network"] "Packets of a service's clients to a virtual address or published port, as far as they enter by this node.";
    FRONTEND_RX_BYTES = Counter "meshd_frontend_receive_bytes" ["service", "frontend", "network"] "Bytes of these.";
    FRONTEND_TX_PACKETS = Counter "meshd_frontend_transmit_packets" ["service", "frontend", "network"] "Packets back to these clients by way of this node.";
    FRONTEND_TX_BYTES = Counter "meshd_frontend_transmit_bytes" ["service", "frontend", "network"] "Bytes of these.";
    FRONTEND_NEW_FLOWS = Counter "meshd_frontend_new_flows" ["service", "frontend", "network"] "Flows of these clients that were given a task.";
    FRONTEND_REFUSED = Counter "meshd_frontend_refused_packets" ["service", "frontend", "network"] "Packets of these clients for which there was no task.";

    ENDPOINT_RX_PACKETS = Counter "meshd_endpoint_receive_packets" ["network", "service", "task"] "Packets to a task on a network.";
    ENDPOINT_RX_BYTES = Counter "meshd_endpoint_receive_bytes" ["network", "service", "task"] "Bytes of these.";
    ENDPOINT_TX_PACKETS = Counter "meshd_endpoint_transmit_packets" ["network", "service", "task"] "Packets from a task on a network.";
    ENDPOINT_TX_BYTES = Counter "meshd_endpoint_transmit_bytes" ["network", "service", "task"] "Bytes of these.";
    ENDPOINT_NEW_FLOWS = Counter "meshd_endpoint_new_flows" ["network", "service", "task"] "Flows that began towards the task, by a virtual address or a published port.";
    ENDPOINT_RX_DROPPED = Counter "meshd_endpoint_receive_dropped_packets" ["network", "service", "task"] "Packets to the task that were dropped.";
    ENDPOINT_TX_DROPPED = Counter "meshd_endpoint_transmit_dropped_packets" ["network", "service", "task"] "Packets from the task that were dropped.";
    ENDPOINT_FLOWS = Gauge "meshd_endpoint_flows" ["network", "service", "task"] "Established flows that the task serves.";

    DNS_QUERIES = Counter "meshd_dns_queries" ["outcome"] "Queries of tasks by what became of them, since the daemon's start.";
    DNS_TRUNCATED = Counter "meshd_dns_truncated_responses" [] "Answers that were cut to the client's size and sent to TCP.";
    DNS_OWN = Histogram "meshd_dns_own_response_seconds" [] "From reading a query to giving its answer to the kernel, where nobody else had to be asked; by UDP.";
    DNS_OUTSIDE = Histogram "meshd_dns_outside_response_seconds" [] "Until name servers outside answered, or none did.";

    GOSSIP_DATAGRAMS = Counter "meshd_gossip_datagrams" ["direction"] "Datagrams of gossip, dropped ones included.";
    GOSSIP_BYTES = Counter "meshd_gossip_bytes" ["direction", "transport"] "Bytes of gossip, as payload of datagrams (udp) and messages (tcp).";
    GOSSIP_REFUSED = Counter "meshd_gossip_refused_packets" ["reason"] "Packets of gossip that were not listened to.";
    GOSSIP_FAILED = Counter "meshd_gossip_send_failures" [] "Datagrams and messages that the kernel or the peer did not take.";
    GOSSIP_TABLES = Gauge "meshd_gossip_tables" [] "Tables of endpoints that the node keeps.";
    GOSSIP_BEHIND = Gauge "meshd_gossip_tables_behind" [] "Of these, how many were found to be otherwise than another node's, and not found equal since.";
    GOSSIP_LAG = Gauge "meshd_gossip_behind_seconds" [] "The longest that one of them has been so.";
    GOSSIP_UNACKNOWLEDGED = Gauge "meshd_gossip_unacknowledged_updates" [] "Updates that other nodes have not acknowledged yet.";
    GOSSIP_SYNCS = Counter "meshd_gossip_comparisons" ["result"] "Comparisons of tables that others began, by whether they found a difference.";
    GOSSIP_SUSPICIONS = Counter "meshd_gossip_suspicions" [] "Nodes that did not answer this one's probes, and were asked about.";
    GOSSIP_RENEWALS = Counter "meshd_gossip_renewals" [] "Times that this node was taken for dead and came back.";
    GOSSIP_SLOWNESS = Gauge "meshd_gossip_slowness" [] "How slow this node seems to be itself, from 0 (well) to 3.";

    RAFT_LEADER = Gauge "meshd_raft_leader" [] "1 on the manager that leads.";
    RAFT_HAS_LEADER = Gauge "meshd_raft_has_leader" [] "1 while the manager knows who leads.";
    RAFT_VOTES = Gauge "meshd_raft_voter" [] "1 if the manager votes; one that has just joined learns first.";
    RAFT_TERM = Gauge "meshd_raft_term" [] "The term: it grows with each election.";
    RAFT_LAST = Gauge "meshd_raft_last_log_index" [] "The last entry of the manager's log.";
    RAFT_COMMITTED = Gauge "meshd_raft_committed_index" [] "The last entry that the manager knows to be decided.";
    RAFT_APPLIED = Gauge "meshd_raft_applied_index" [] "The last entry that is in the manager's state.";
    RAFT_SNAPSHOT = Gauge "meshd_raft_snapshot_index" [] "The last entry of its newest snapshot.";
    RAFT_MANAGERS = Gauge "meshd_raft_managers" ["voter", "reachable"] "Managers as the one that leads sees them; there alone.";
    RAFT_FAILED = Gauge "meshd_raft_failed" [] "1 if the manager has stopped by itself, mostly because its disk cannot be written.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let names: BTreeSet<_> = ALL.iter().map(|f| f.name).collect();
        assert_eq!(names.len(), ALL.len(), "one is there twice");
        for Family { name, kind, help, labels } in ALL.iter().copied() {
            let word = |text: &str| {
                text.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
                    && text.starts_with(|c: char| c.is_ascii_lowercase())
            };
            assert!(word(name) && labels.iter().all(|label| word(label) && *label != "le"), "{name}");
            assert!(name.starts_with("meshd_") || name.starts_with("process_"), "{name}");
            for suffix in ["_total", "_info", "_count", "_sum", "_bucket", "_created"] {
                assert!(!name.ends_with(suffix), "{name}: {suffix} is added by the kind");
            }
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
            assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
        }
    }
}
