//! IPv6 of tasks whose namespaces others change too: Docker before 26 switches it off in a container's namespace a moment
//! after the namespace is there, which takes the addresses of every interface.

use ipnet::IpNet;
use mesh_netlink::Netlink;

use crate::{Agent, AttachError, LocalTask, connect::lead_routes};

impl Agent {
    /// Switches IPv6 on again at a task's places, with their addresses and its default route. Changes nothing where all of it
    /// is there; on an error some may be back.
    pub(crate) async fn put_back_ipv6(&self, task: &LocalTask) -> Result<(), AttachError> {
        if !task.attachments.iter().flat_map(|a| &a.addresses).any(std::net::IpAddr::is_ipv6) {
            return Ok(());
        }
        let (ns, view) = (task.namespace.open()?, self.view());
        for attachment in &task.attachments {
            let Some(network) = view.networks.get(&attachment.network) else { continue };
            for address in attachment.addresses.iter().filter(|address| address.is_ipv6()) {
                let subnet = network.subnet_of(*address);
                let address = subnet.and_then(|s| IpNet::new(*address, s.net().prefix_len()).ok());
                if let Some(address) = address {
                    Netlink::put_back_ipv6(&ns, &attachment.task_link, address).await?;
                }
            }
        }
        Ok(lead_routes(&ns, &view, task, None).await?)
    }
}
