//! Published ports: `80:80`, `8080:80/udp`, `published=8080,target=80,protocol=udp,mode=host`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A transport protocol that ports belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Protocol {
    /// RFC 9293.
    #[default]
    Tcp,
    /// RFC 768.
    Udp,
}

impl Protocol {
    /// The IP protocol number (IANA).
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }

    /// Its name in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        match text {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            other => Err(PortError::Protocol(other.to_owned())),
        }
    }
}

/// Where a published port is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum PublishMode {
    /// On every node, balanced over all tasks.
    #[default]
    Ingress,
}

impl fmt::Display for PublishMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("ingress")
    }
}

/// A published port of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortConfig {
    /// The port that clients use on every node; 0 asks the managers for a free one of 30000-32767.
    pub published: u16,
    /// The port that the tasks listen on.
    pub target: u16,
    /// The transport.
    pub protocol: Protocol,
    /// Where it is open.
    pub mode: PublishMode,
}

/// Why a text is not a published port.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PortError {
    /// Not a number of 1 to 65535.
    #[error("{0:?} is not a port number of 1 to 65535")]
    Number(String),
    /// A transport other than tcp and udp.
    #[error("protocol {0:?} is not known; use tcp or udp")]
    Protocol(String),
    /// A mode other than ingress.
    #[error("mode {0:?} is not known; use ingress")]
    Mode(String),
    /// An unknown `key=value` field.
    #[error("{0:?} is not a field of a published port; the fields are published, target, protocol and mode")]
    Field(String),
    /// No target port was given.
    #[error("{0:?} names no target port; write PUBLISHED:TARGET, for example 8080:80")]
    NoTarget(String),
}

impl fmt::Display for PortConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.published, self.target, self.protocol)
    }
}

impl FromStr for PortConfig {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        if text.contains('=') { long_form(text) } else { short_form(text) }
    }
}

fn short_form(text: &str) -> Result<PortConfig, PortError> {
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, protocol.parse()?),
        None => (text, Protocol::Tcp),
    };
    let (published, target) = match ports.split_once(':') {
        Some((published, target)) => (port(published)?, port(target)?),
        None => (0, port(ports)?),
    };
    Ok(PortConfig { published, target, protocol, mode: PublishMode::Ingress })
}

fn long_form(text: &str) -> Result<PortConfig, PortError> {
    let mut config =
        PortConfig { published: 0, target: 0, protocol: Protocol::Tcp, mode: PublishMode::Ingress };
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("published", value)) => config.published = port(value)?,
            Some(("target", value)) => config.target = port(value)?,
            Some(("protocol", value)) => config.protocol = value.parse()?,
            Some(("mode", "ingress")) => config.mode = PublishMode::Ingress,
            Some(("mode", other)) => return Err(PortError::Mode(other.to_owned())),
            _ => return Err(PortError::Field(field.to_owned())),
        }
    }
    if config.target == 0 { Err(PortError::NoTarget(text.to_owned())) } else { Ok(config) }
}

fn port(text: &str) -> Result<u16, PortError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(number) if number > 0 && digits => Ok(number),
        _ => Err(PortError::Number(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        let p = |text: &str| text.parse::<PortConfig>().unwrap().to_string();
        assert_eq!(p("80:80"), "80:80/tcp");
        assert_eq!(p("8080:80/udp"), "8080:80/udp");
        assert_eq!(p("80"), "0:80/tcp");
        assert_eq!(p("published=8080,target=80,protocol=udp,mode=ingress"), "8080:80/udp");
    }

    #[test]
    fn errors_name_the_part() {
        let e = |text: &str| text.parse::<PortConfig>().unwrap_err().to_string();
        assert!(e("80:x").contains("\"x\""));
        assert!(e("80:80/icmp").contains("icmp"));
        assert!(e("0:80").contains("\"0\""));
        assert!(e("published=80").contains("target"));
        assert!(e("foo=1").contains("foo"));
        assert!(e("70000:80").contains("70000"));
    }

    proptest! {
        #[test]
        fn noise_never_panics(text in ".{0,40}") {
            let _ = text.parse::<PortConfig>();
        }
    }
}
