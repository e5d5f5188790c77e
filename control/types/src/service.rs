//! Services: a name, the networks it is on, and the ports it publishes.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    HealthCheck, Name, NetworkId, PortConfig, SecondsError, ServiceId, format_seconds, parse_seconds,
};

/// How long a draining task keeps its established flows unless somebody says otherwise, in seconds.
pub const DEFAULT_DRAIN_SECS: u32 = 30;

/// How a service's name is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum EndpointMode {
    /// One virtual address per network, balanced by the data path.
    #[default]
    Vip,
    /// DNS answers with the tasks' own addresses.
    Dnsrr,
}

impl FromStr for EndpointMode {
    type Err = EndpointModeError;
    fn from_str(text: &str) -> Result<Self, EndpointModeError> {
        match text {
            "vip" => Ok(EndpointMode::Vip),
            "dnsrr" => Ok(EndpointMode::Dnsrr),
            _ => Err(EndpointModeError(text.to_owned())),
        }
    }
}

/// Why a text is no endpoint mode.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("endpoint mode {0:?} is not known; there are vip and dnsrr")]
pub struct EndpointModeError(String);

impl fmt::Display for EndpointMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            EndpointMode::Vip => "vip",
            EndpointMode::Dnsrr => "dnsrr",
        })
    }
}

/// Connections of one client address go to one task of the service.
///
/// As text: `client-ip`, `client-ip,30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Affinity {
    /// How long the choice is remembered after the client's last connection, in seconds. 0: nothing is remembered, the
    /// address alone chooses; then some clients move when tasks come and go.
    pub timeout_secs: u32,
}

/// Why a text is no affinity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AffinityError {
    /// Another kind than client-ip.
    #[error("affinity {0:?} is not known; use client-ip or client-ip,TIMEOUT, for example client-ip,30m")]
    Kind(String),
    /// The timeout.
    #[error("affinity: {0}")]
    Timeout(#[from] SecondsError),
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.timeout_secs {
            0 => f.pad("client-ip"),
            seconds => f.pad(&format!("client-ip,{}", format_seconds(seconds))),
        }
    }
}

impl FromStr for Affinity {
    type Err = AffinityError;
    fn from_str(text: &str) -> Result<Self, AffinityError> {
        match text.split_once(',').unwrap_or((text, "0")) {
            ("client-ip", timeout) => Ok(Self { timeout_secs: parse_seconds(timeout)? }),
            _ => Err(AffinityError::Kind(text.to_owned())),
        }
    }
}

/// A service's place on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNetwork {
    /// The network.
    pub network: NetworkId,
    /// One virtual address per family of the network; empty with `dnsrr`.
    pub vips: Vec<IpAddr>,
    /// Further names on this network.
    pub aliases: Vec<Name>,
}

/// A service. Its tasks are those that nodes announce for it; no scheduler places them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// Its unique name.
    pub name: Name,
    /// The networks its tasks join, in this order.
    pub networks: Vec<ServiceNetwork>,
    /// How its name is answered.
    pub endpoint_mode: EndpointMode,
    /// Its published ports.
    pub ports: Vec<PortConfig>,
    /// What keeps a client with one task; none: each connection is balanced on its own.
    pub affinity: Option<Affinity>,
    /// Whether a node sends to its own tasks as long as it has one that is ready.
    pub prefer_local: bool,
    /// How long a draining task may keep its established flows, in seconds, unless it says so itself.
    pub drain_timeout_secs: u32,
    /// How its tasks are checked; none: they count as healthy.
    pub health: Option<HealthCheck>,
    /// Free text by key.
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970-01-01 UTC.
    pub created_at: u64,
    /// The version of the cluster's state that changed it last.
    pub version: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinity_text() {
        for (text, timeout_secs) in [("client-ip", 0), ("client-ip,30m", 1800), ("client-ip,45s", 45)] {
            let affinity = Affinity { timeout_secs };
            assert_eq!(text.parse(), Ok(affinity));
            assert_eq!(affinity.to_string(), text);
        }
        for bad in ["", "none", "cookie", "client-ip,", "client-ip,30", "client-ip,1s,1s", "client-ip 30m"] {
            assert!(bad.parse::<Affinity>().is_err(), "{bad}");
        }
    }
}
