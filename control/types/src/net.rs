//! Wire quantities: VXLAN network identifiers, address families and Ethernet addresses.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A VXLAN network identifier: 24 bits (RFC 7348, section 4); 0 is never used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

/// The number is 0 or does not fit 24 bits.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("VNI {0} is not in 1..=16777215")]
pub struct VniError(u32);

impl Vni {
    /// The first identifier given to a network, as in Swarm.
    pub const FIRST: Vni = Vni(4096);
    /// The last identifier there is.
    pub const LAST: Vni = Vni(0x00ff_ffff);
    /// Packets of published ports on their way to the task's node.
    pub const INGRESS: Vni = Vni(1);
    /// Replies of published ports on their way back to the node the client spoke to.
    pub const RETURN: Vni = Vni(2);

    /// Checks the range.
    pub const fn new(value: u32) -> Result<Self, VniError> {
        if value == 0 || value > Self::LAST.0 { Err(VniError(value)) } else { Ok(Self(value)) }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniError;
    fn try_from(value: u32) -> Result<Self, VniError> {
        Self::new(value)
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> u32 {
        vni.0
    }
}

/// A family of addresses. IPv4 comes first wherever both are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

/// The text is not six hexadecimal octets joined by colons.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not an Ethernet address such as 02:42:0a:0a:03:05")]
pub struct MacError(String);

impl Mac {
    /// The locally administered address that follows from an endpoint's IP address, so that it never changes hands
    /// with a stale neighbour entry: `02:42` and the last four octets.
    pub fn of_address(address: IpAddr) -> Self {
        let tail = match address {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(v6) => {
                let o = v6.octets();
                [o[12], o[13], o[14], o[15]]
            }
        };
        Self([0x02, 0x42, tail[0], tail[1], tail[2], tail[3]])
    }

    /// Whether one interface can have it: neither a group's address (IEEE 802, the lowest bit of the first octet) nor zero.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacError;
    fn from_str(text: &str) -> Result<Self, MacError> {
        let bad = || MacError(text.to_owned());
        let mut octets = [0u8; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(octets)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vni_range() {
        assert!(Vni::new(0).is_err());
        assert!(Vni::new(1 << 24).is_err());
        assert_eq!(Vni::new(4096), Ok(Vni::FIRST));
    }

    #[test]
    fn mac_text() {
        let mac = Mac::of_address("10.10.3.5".parse().unwrap());
        assert_eq!(mac.to_string(), "02:42:0a:0a:03:05");
        assert_eq!("02:42:0a:0a:03:05".parse(), Ok(mac));
        for bad in ["", "02:42", "02:42:0a:0a:03:05:06", "02:42:0a:0a:03:zz", "+2:42:0a:0a:03:05x"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
