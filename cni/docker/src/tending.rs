//! Removes what Docker has forgotten: after either daemon was killed, nobody else would.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    time::Duration,
};

use mesh_api::v1;
use mesh_types::NetworkId;
use tracing::{debug, info, warn};

use crate::{
    book::Pages,
    engine::EngineError,
    plugin::{ADDRESS_OWNER, OWNER, Plugin, PluginError},
};

/// How often Docker is compared with the daemon.
const PERIOD: Duration = Duration::from_secs(20);

/// What is there that Docker does not know.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Stale {
    /// Docker's ids of endpoints.
    endpoints: BTreeSet<String>,
    /// Reserved addresses.
    addresses: BTreeSet<(NetworkId, IpAddr)>,
    /// Docker's ids of networks.
    networks: BTreeSet<String>,
}

/// What Docker knows.
#[derive(Debug, Default)]
struct Known {
    networks: HashSet<String>,
    endpoints: HashSet<String>,
    addresses: HashSet<(NetworkId, IpAddr)>,
}

impl Plugin {
    /// Runs for as long as the plugin is served. What is stale twice in a row goes: between Docker's word to us and its own
    /// note of it, things are for a moment known to one side only.
    pub(crate) async fn tend(self) {
        let mut before = Stale::default();
        loop {
            tokio::time::sleep(PERIOD).await;
            match self.stale().await {
                Ok(now) => {
                    self.remove(&now.and(&before)).await;
                    before = now;
                }
                // Nothing is known to be stale then. In no cluster there is nothing at all.
                Err(error) => {
                    debug!(%error, "compare with Docker");
                    before = Stale::default();
                }
            }
        }
    }

    async fn stale(&self) -> Result<Stale, PluginError> {
        let known = self.known().await?;
        let tasks = self.mesh.tasks().await?;
        let pages = self.book.read(Pages::clone);
        let mut stale = compare(&known, &pages, &tasks);
        stale.endpoints.retain(|endpoint| !self.is_waiting(endpoint));
        Ok(stale)
    }

    async fn known(&self) -> Result<Known, EngineError> {
        let mut known = Known::default();
        let pages = self.book.read(Pages::clone);
        for id in self.engine.networks_of(&self.options.driver).await? {
            let Some(page) = self.engine.network(&id).await? else { continue };
            for endpoint in page.containers.into_iter().flatten().map(|(_, endpoint)| endpoint) {
                let addresses = [&endpoint.address, &endpoint.address6].into_iter();
                let addresses = addresses.filter_map(|text| text.split('/').next()?.parse::<IpAddr>().ok());
                if let Some(kept) = pages.networks.get(&id) {
                    known.addresses.extend(addresses.map(|address| (kept.network, address)));
                }
                known.endpoints.insert(endpoint.endpoint);
            }
            known.networks.insert(id);
        }
        Ok(known)
    }

    async fn remove(&self, stale: &Stale) {
        for endpoint in &stale.endpoints {
            info!(endpoint, "Docker has forgotten an endpoint");
            if let Err(error) = self.end(endpoint).await {
                warn!(endpoint, %error, "end a stale endpoint");
            }
        }
        for (network, address) in &stale.addresses {
            info!(%network, %address, "Docker has forgotten an address");
            if let Err(error) = self.mesh.release(*network, *address).await {
                warn!(%network, %address, %error, "release a stale address");
            }
        }
        let cleared = self.book.write(|pages| {
            pages.networks.retain(|id, _| !stale.networks.contains(id));
            pages.endpoints.retain(|id, _| !stale.endpoints.contains(id));
        });
        if let Err(error) = cleared {
            warn!(%error, "clear Docker's book");
        }
    }
}

impl Stale {
    fn and(&self, other: &Self) -> Self {
        Self {
            endpoints: self.endpoints.intersection(&other.endpoints).cloned().collect(),
            addresses: self.addresses.intersection(&other.addresses).copied().collect(),
            networks: self.networks.intersection(&other.networks).cloned().collect(),
        }
    }
}

fn compare(known: &Known, pages: &Pages, tasks: &v1::ListTasksResponse) -> Stale {
    let owners = tasks.local.iter().flat_map(|task| &task.owners);
    let attached = owners.filter_map(|owner| owner.strip_prefix(OWNER)).map(str::to_owned);
    let endpoints = attached.chain(pages.endpoints.keys().cloned());
    let ours = tasks.reserved.iter().filter(|kept| kept.owner.starts_with(ADDRESS_OWNER));
    let reserved = ours.filter_map(|kept| Some((kept.network_id.parse().ok()?, kept.address.parse().ok()?)));
    Stale {
        endpoints: endpoints.filter(|id| !known.endpoints.contains(id)).collect(),
        addresses: reserved.filter(|address| !known.addresses.contains(address)).collect(),
        networks: pages.networks.keys().filter(|id| !known.networks.contains(*id)).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::KeptNetwork;

    #[test]
    fn stale_is_what_docker_does_not_know_of_ours() {
        let network = NetworkId::random();
        let address = |last: u8| (network, IpAddr::from([10, 10, 3, last]));
        let mut pages = Pages::default();
        for id in ["n1", "n2"] {
            pages.networks.insert(id.to_owned(), KeptNetwork { network, addressed: true });
        }
        let known = Known {
            networks: ["n1".to_owned()].into(),
            endpoints: ["e1".to_owned()].into(),
            addresses: [address(2)].into(),
        };
        let reserved = |last: u8, owner: &str| v1::ReservedAddress {
            network_id: network.to_string(),
            address: address(last).1.to_string(),
            owner: owner.to_owned(),
            used: false,
        };
        let owners = ["docker:e1", "docker:e2", "cni:x/y/eth0"].map(str::to_owned).to_vec();
        let tasks = v1::ListTasksResponse {
            local: vec![v1::LocalTask { owners, ..Default::default() }],
            reserved: vec![
                reserved(2, "docker-address:a"),
                reserved(3, "docker-address:b"),
                reserved(4, "cni:x"),
            ],
            ..Default::default()
        };
        let stale = compare(&known, &pages, &tasks);
        let set = |text: &str| BTreeSet::from([text.to_owned()]);
        assert_eq!((stale.endpoints.clone(), stale.networks.clone()), (set("e2"), set("n2")));
        assert_eq!(stale.addresses, BTreeSet::from([address(3)]));
        assert_eq!(stale.and(&Stale::default()), Stale::default());
        assert_eq!(stale.and(&stale), stale);
    }
}
