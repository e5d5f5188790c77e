//! Services, as they are asked for.

use std::collections::BTreeMap;

use mesh_types::{
    Affinity, EndpointMode, HealthSettings, Name, NetworkId, PortConfig, PortFilter, ServiceId,
};
use serde::{Deserialize, Serialize};

/// A new service, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewService {
    /// A fresh random id.
    pub id: ServiceId,
    /// Its name.
    pub name: Name,
    /// Its networks, each with the service's further names there; empty: the ingress network.
    pub networks: Vec<(NetworkId, Vec<Name>)>,
    /// How its name is answered.
    pub endpoint_mode: EndpointMode,
    /// Its published ports; 0 asks for a free one.
    pub ports: Vec<PortConfig>,
    /// What keeps a client with one task.
    pub affinity: Option<Affinity>,
    /// Whether nodes send to their own tasks first.
    pub prefer_local: bool,
    /// How long a draining task may keep its flows, in seconds.
    pub drain_timeout_secs: u32,
    /// How its tasks are checked.
    pub health: Option<HealthSettings>,
    /// Free text by key.
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970-01-01 UTC.
    pub now: u64,
}

/// What to change of a service; `None` leaves a thing as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServiceChange {
    /// Refuse the change unless the service has this version.
    pub expected_version: Option<u64>,
    /// Networks to leave, with the virtual addresses there.
    pub remove_networks: Vec<NetworkId>,
    /// Networks to join after that, each with the service's further names there.
    pub add_networks: Vec<(NetworkId, Vec<Name>)>,
    /// Further names to give up.
    pub remove_aliases: Vec<AliasChange>,
    /// Further names to take after that.
    pub add_aliases: Vec<AliasChange>,
    /// How its name is answered.
    pub endpoint_mode: Option<EndpointMode>,
    /// Another affinity, or none.
    pub affinity: Option<Option<Affinity>>,
    /// Whether nodes send to their own tasks first.
    pub prefer_local: Option<bool>,
    /// How long a draining task may keep its flows, in seconds.
    pub drain_timeout_secs: Option<u32>,
    /// What to change of how its tasks are checked, or no check any more.
    pub health: Option<Option<HealthSettings>>,
    /// Ports to close: all that fit one of these. One that fits nothing refuses the whole change.
    pub remove_ports: Vec<PortFilter>,
    /// Ports to publish after that; 0 asks for a free one.
    pub add_ports: Vec<PortConfig>,
    /// Labels to set.
    pub set_labels: BTreeMap<String, String>,
    /// Labels to take away.
    pub remove_labels: Vec<String>,
}

/// A further name of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasChange {
    /// On which network; none: on each that the service is on.
    pub network: Option<NetworkId>,
    /// The name.
    pub alias: Name,
}
