//! What a Docker engine and a plugin say to each other (libnetwork's `drivers/remote` and `ipams/remote`, in JSON).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Options of the user's own, `-o key=value`, are under this one.
pub const GENERIC: &str = "com.docker.network.generic";
/// Ports that are to be published, in the options of an endpoint.
pub const PORT_MAP: &str = "com.docker.network.portmap";
/// `docker network create --internal`, in the options of a network.
pub const INTERNAL: &str = "com.docker.network.internal";
/// The gateway, in what is said of a pool; and what a request for a gateway's address is marked with.
pub const GATEWAY: &str = "com.docker.network.gateway";
/// The key of that mark.
pub const REQUEST_TYPE: &str = "RequestAddressType";
/// What Docker's own options begin with.
pub const DOCKERS_OWN: &str = "com.docker.";

/// `NetworkDriver.CreateNetwork`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    pub network: String,
    #[serde(default)]
    pub options: Option<Map<String, Value>>,
    #[serde(default, rename = "IPv4Data")]
    pub ipv4: Option<Vec<IpamData>>,
    #[serde(default, rename = "IPv6Data")]
    pub ipv6: Option<Vec<IpamData>>,
}

/// A pool of a network.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpamData {
    #[serde(default)]
    pub address_space: String,
    #[serde(default)]
    pub pool: Option<String>,
}

/// A request that names a network: `DeleteNetwork`.
#[derive(Debug, Deserialize)]
pub struct NetworkOnly {
    #[serde(rename = "NetworkID")]
    pub network: String,
}

/// `NetworkDriver.CreateEndpoint`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateEndpoint {
    #[serde(rename = "NetworkID")]
    pub network: String,
    #[serde(rename = "EndpointID")]
    pub endpoint: String,
    #[serde(default)]
    pub interface: Option<Interface>,
    #[serde(default)]
    pub options: Option<Map<String, Value>>,
}

/// An endpoint's addresses; empty ones are not known.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Interface {
    /// With a prefix length, as the next.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    #[serde(rename = "AddressIPv6", skip_serializing_if = "String::is_empty")]
    pub address6: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
}

/// A request that names an endpoint: `DeleteEndpoint`, `EndpointOperInfo`, `Leave`, `RevokeExternalConnectivity`.
#[derive(Debug, Deserialize)]
pub struct EndpointOnly {
    #[serde(rename = "NetworkID")]
    pub network: String,
    #[serde(rename = "EndpointID")]
    pub endpoint: String,
}

/// `NetworkDriver.Join`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Join {
    #[serde(rename = "NetworkID")]
    pub network: String,
    #[serde(rename = "EndpointID")]
    pub endpoint: String,
    pub sandbox_key: String,
}

/// One of the ports under [`PORT_MAP`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortBinding {
    /// As in the header of IP packets.
    pub proto: u8,
    pub port: u16,
    /// The address of the host; empty or unspecified: every one.
    #[serde(default, rename = "HostIP")]
    pub host_ip: String,
    /// 0: Docker asks for a free one.
    #[serde(default)]
    pub host_port: u16,
    /// The last of a range.
    #[serde(default)]
    pub host_port_end: u16,
}

/// `IpamDriver.RequestPool`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RequestPool {
    #[serde(default)]
    pub pool: String,
    #[serde(default)]
    pub sub_pool: String,
    #[serde(default)]
    pub options: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub v6: bool,
}

/// `IpamDriver.ReleasePool`.
#[derive(Debug, Deserialize)]
pub struct ReleasePool {
    #[serde(rename = "PoolID")]
    pub pool: String,
}

/// `IpamDriver.RequestAddress`, and `ReleaseAddress`, which has no options.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AddressRequest {
    #[serde(rename = "PoolID")]
    pub pool: String,
    /// Empty: any.
    #[serde(default)]
    pub address: String,
    #[serde(default)]
    pub options: Option<BTreeMap<String, String>>,
}
