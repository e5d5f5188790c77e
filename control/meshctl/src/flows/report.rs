//! A flow as it is shown.

use mesh_api::v1;
use serde::Serialize;

use crate::output::{Cell, Table};

/// A flow, for programs. What is not known is `null`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlowReport {
    /// `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, or a number; of a packet that is no IP packet `arp`, or its EtherType.
    pub protocol: String,
    /// Who began it; empty where a packet has no address.
    pub client_address: String,
    /// Its port; of ICMP the identifier of an echo request.
    pub client_port: u32,
    /// The task or node that it is.
    pub client: Option<String>,
    /// What the client speaks to.
    pub address: String,
    /// The port of that.
    pub port: u32,
    /// The service behind that.
    pub service: Option<String>,
    /// The task's network.
    pub network: Option<String>,
    /// The task that the flow was given to.
    pub task: Option<String>,
    /// Its address.
    pub task_address: Option<String>,
    /// Its port.
    pub task_port: Option<u32>,
    /// Its node.
    pub node: Option<String>,
    /// The node that the client speaks to.
    pub entrance: Option<String>,
    /// `new`, `answered`, `established`, `closing`, `closed`, `reset`.
    pub state: String,
    /// Milliseconds since its last packet, exact to a second.
    pub idle_millis: u64,
}

impl From<v1::Flow> for FlowReport {
    fn from(flow: v1::Flow) -> Self {
        let known = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            protocol: flow.protocol,
            client_address: flow.client_address,
            client_port: flow.client_port,
            client: known(flow.client),
            address: flow.address,
            port: flow.port,
            service: known(flow.service),
            network: known(flow.network),
            task: known(flow.task),
            task_address: known(flow.task_address),
            task_port: Some(flow.task_port).filter(|port| *port != 0),
            node: known(flow.node),
            entrance: known(flow.entrance),
            state: flow.state,
            idle_millis: flow.idle_millis,
        }
    }
}

impl FlowReport {
    /// Who began it, in one cell.
    pub fn opener(&self) -> String {
        named(self.client.as_deref(), &self.end(&self.client_address, self.client_port))
    }

    /// What it speaks to, in one cell.
    pub fn to_what(&self) -> String {
        named(self.service.as_deref(), &self.end(&self.address, self.port))
    }

    /// Who serves it, in one cell.
    pub fn by_whom(&self) -> String {
        match (&self.task_address, self.task_port) {
            (Some(address), port) => {
                named(self.task.as_deref(), &self.end(address, port.unwrap_or_default()))
            }
            (None, _) => self.task.clone().unwrap_or_else(|| "-".to_owned()),
        }
    }

    /// An address, with its port where the protocol has one.
    fn end(&self, address: &str, port: u32) -> String {
        match address {
            "" => "?".to_owned(),
            _ if port == 0 || self.protocol.starts_with("icmp") => address.to_owned(),
            _ => socket(address, port),
        }
    }
}

fn named(name: Option<&str>, address: &str) -> String {
    name.map_or_else(|| address.to_owned(), |name| format!("{name} ({address})"))
}

fn socket(address: &str, port: u32) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// The table of flows.
pub fn table(flows: &[FlowReport]) -> Table {
    let headings = ["PROTOCOL", "CLIENT", "TO", "TASK", "NODE", "STATE", "IDLE"];
    let mut table = Table::new(&headings).optional(&["NODE", "PROTOCOL", "IDLE"]);
    for flow in flows {
        table.row([
            Cell::new(&flow.protocol),
            Cell::new(flow.opener()),
            Cell::new(flow.to_what()),
            Cell::new(flow.by_whom()),
            Cell::new(flow.node.as_deref().unwrap_or("-")),
            Cell::new(&flow.state),
            Cell::new(idle(flow.idle_millis)),
        ]);
    }
    table
}

fn idle(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        assert_eq!([0, 119_999, 120_000, 7_200_000, 172_800_000].map(idle), ["0s", "119s", "2m", "2h", "2d"]);
    }

    #[test]
    fn addresses_of_both_families() {
        assert_eq!(socket("10.0.0.1", 80), "10.0.0.1:80");
        assert_eq!(socket("fd00::1", 80), "[fd00::1]:80");
    }
}
