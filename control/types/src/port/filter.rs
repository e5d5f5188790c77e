//! Which published ports are meant, to close them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    PortConfig, PortError, Protocol, PublishAt, PublishMode, ReturnMode,
    parse::{Short, Spec},
};

/// The published ports that a text means: those that are as it says, whatever it leaves out; tcp unless it says.
///
/// The forms are those of [`PortConfig`], but for a lone port, which is the published one: `8080`, `8080/udp`,
/// `eth0:8080`, `8080:80`, `8000-8010`, `published=8080,mode=host`. A place that is left out fits all places; `*:8080`
/// means only the port on all addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortFilter {
    /// First and last of the ports that clients use; none means any.
    pub published: Option<(u16, u16)>,
    /// First and last of the ports that tasks listen on; none means any.
    pub target: Option<(u16, u16)>,
    /// The transport.
    pub protocol: Protocol,
    /// Which nodes they are open on; none means any.
    pub mode: Option<PublishMode>,
    /// Where on them; none means any.
    pub at: Option<PublishAt>,
    /// Which way replies go; none means any.
    pub return_mode: Option<ReturnMode>,
}

impl PortFilter {
    /// Whether it means this port.
    pub fn matches(&self, port: &PortConfig) -> bool {
        fn within(range: Option<(u16, u16)>, number: u16) -> bool {
            range.is_none_or(|(first, last)| (first..=last).contains(&number))
        }
        within(self.published, port.published)
            && within(self.target, port.target)
            && self.protocol == port.protocol
            && self.mode.is_none_or(|mode| mode == port.mode)
            && self.at.is_none_or(|at| at == port.at)
            && self.return_mode.is_none_or(|mode| mode == port.return_mode)
    }
}

impl FromStr for PortFilter {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let spec = Spec::read(text, Short::Find)?;
        if spec.published.is_none() && spec.target.is_none() {
            return Err(PortError::NoPort(text.to_owned()));
        }
        let ends = |range: std::ops::RangeInclusive<u16>| range.into_inner();
        Ok(Self {
            published: spec.published.map(ends),
            target: spec.target.map(ends),
            protocol: spec.protocol.unwrap_or_default(),
            mode: spec.mode,
            at: spec.at,
            return_mode: spec.return_mode,
        })
    }
}

/// The text that reads as the same filter again.
impl fmt::Display for PortFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Ends(u16, u16);
        impl fmt::Display for Ends {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.0 == self.1 { write!(f, "{}", self.0) } else { write!(f, "{}-{}", self.0, self.1) }
            }
        }
        match (self.published, self.target) {
            (Some((first, last)), target) => {
                if let Some(at) = self.at {
                    write!(f, "{at}:")?;
                }
                Ends(first, last).fmt(f)?;
                if let Some((first, last)) = target {
                    write!(f, ":{}", Ends(first, last))?;
                }
                write!(f, "/{}", self.protocol)?;
            }
            (None, target) => {
                let (first, last) = target.unwrap_or((1, u16::MAX));
                write!(f, "target={},protocol={}", Ends(first, last), self.protocol)?;
                match self.at {
                    Some(PublishAt::Interface(name)) => write!(f, ",interface={name}")?,
                    Some(at) => write!(f, ",address={at}")?,
                    None => {}
                }
            }
        }
        if let Some(mode) = self.mode {
            write!(f, ",mode={mode}")?;
        }
        if let Some(mode) = self.return_mode {
            write!(f, ",return={mode}")?;
        }
        Ok(())
    }
}
