//! The address driver's calls: Docker gets the addresses that the mesh gives.
//!
//! Pools are nobody's: a pool's name says which network and family it is of.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use mesh_types::{Family, NetworkId};
use serde_json::{Value, json};

use crate::{
    mesh::Reserve,
    places::{self, ADDRESS_SPACE, NETWORK},
    plugin::{ADDRESS_OWNER, Plugin, PluginError},
    protocol::{AddressRequest, GATEWAY, REQUEST_TYPE, ReleasePool, RequestPool},
};

impl Plugin {
    pub(crate) fn address_spaces(&self) -> Value {
        json!({"LocalDefaultAddressSpace": ADDRESS_SPACE, "GlobalDefaultAddressSpace": ADDRESS_SPACE})
    }

    pub(crate) async fn request_pool(&self, request: RequestPool) -> Result<Value, PluginError> {
        let options = request.options.unwrap_or_default();
        let reference =
            options.get(NETWORK).filter(|text| !text.is_empty()).ok_or(PluginError::NoIpamOption)?;
        if !request.sub_pool.is_empty() {
            return Err(PluginError::SubPool);
        }
        let view = self.view_of(reference).await?;
        let network = places::find(&view, reference)?;
        let family = if request.v6 { Family::V6 } else { Family::V4 };
        let subnet = network.subnets.iter().find(|subnet| subnet.family() == family);
        let subnet = subnet.ok_or_else(|| PluginError::NoFamily { network: network.name.clone(), family })?;
        let net = subnet.net();
        if request.pool.is_empty() {
            // Docker asks again, while it holds what it has, for as long as the pool overlaps with a route.
            if self.repeats.is_storm(network.id, family) {
                return Err(PluginError::Overlap(net));
            }
        } else if request.pool.parse::<IpNet>().map(|given| given.trunc()) != Ok(net) {
            return Err(PluginError::OtherSubnet {
                network: network.name.clone(),
                subnet: net,
                given: request.pool,
            });
        }
        let gateway = format!("{}/{}", subnet.gateway(), net.prefix_len());
        Ok(json!({"PoolID": pool_name(network.id, family), "Pool": net, "Data": {GATEWAY: gateway}}))
    }

    pub(crate) fn release_pool(&self, request: ReleasePool) -> Result<(), PluginError> {
        read_pool(&request.pool).map(drop)
    }

    pub(crate) async fn request_address(&self, request: AddressRequest) -> Result<Value, PluginError> {
        let (network, family) = read_pool(&request.pool)?;
        let view = self.mesh.view().await?;
        let network = places::by_id(&view, network)?;
        let subnet = network.subnets.iter().find(|subnet| subnet.family() == family);
        let subnet = subnet.ok_or_else(|| PluginError::NoFamily { network: network.name.clone(), family })?;
        let asked = match request.address.as_str() {
            "" => None,
            text => Some(text.parse::<IpAddr>().map_err(|_| PluginError::Address(text.to_owned()))?),
        };
        let is_gateway = request.options.iter().flatten().any(|(k, v)| k == REQUEST_TYPE && v == GATEWAY);
        let address = match (is_gateway, asked) {
            (true, Some(given)) if given != subnet.gateway() => {
                let (network, gateway) = (network.name.clone(), subnet.gateway());
                return Err(PluginError::OtherGateway { network, gateway, given });
            }
            (true, _) => subnet.gateway(),
            (false, address) => {
                let wish = Reserve { network: network.id, address, family, owner: unique_owner() };
                self.mesh.reserve(wish).await?
            }
        };
        Ok(json!({"Address": format!("{address}/{}", subnet.net().prefix_len()), "Data": {}}))
    }

    /// One that is not reserved is nobody's: a gateway's, or one that was given back before.
    pub(crate) async fn release_address(&self, request: AddressRequest) -> Result<(), PluginError> {
        let (network, _) = read_pool(&request.pool)?;
        let address = request.address.parse().map_err(|_| PluginError::Address(request.address.clone()))?;
        Ok(self.mesh.release(network, address).await?)
    }
}

/// No other reservation's, over restarts too.
fn unique_owner() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{ADDRESS_OWNER}{:x}-{:x}-{count}", std::process::id(), now.as_nanos())
}

fn pool_name(network: NetworkId, family: Family) -> String {
    format!("mesh/{network}/{family}")
}

fn read_pool(name: &str) -> Result<(NetworkId, Family), PluginError> {
    let read = || {
        let (network, family) = name.strip_prefix("mesh/")?.split_once('/')?;
        let families = [Family::V4, Family::V6];
        let family = families.into_iter().find(|known| known.to_string() == family)?;
        Some((network.parse().ok()?, family))
    };
    read().ok_or_else(|| PluginError::UnknownPool(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_have_names() {
        let network: NetworkId =
            "0000000000000000000000000000002a".parse().unwrap_or_else(|_| NetworkId::random());
        for family in [Family::V4, Family::V6] {
            assert_eq!(read_pool(&pool_name(network, family)).unwrap(), (network, family));
        }
        for bad in ["", "mesh", "mesh//IPv4", "other/1/IPv4", "mesh/1/IPv5"] {
            assert!(read_pool(bad).unwrap_err().to_string().contains(&format!("{bad:?}")), "{bad}");
        }
    }

    #[test]
    fn owners_differ() {
        assert_ne!(unique_owner(), unique_owner());
    }
}
