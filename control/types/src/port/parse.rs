//! The text forms of published ports.
//!
//! `[PLACE:][PUBLISHED:]TARGET[/PROTOCOL][,FIELD=VALUE..]` or fields alone. A place in front of a target alone needs a
//! second colon (`eth0::80`), so that nobody takes a target port for a published one.

use std::ops::RangeInclusive;

use super::{PortConfig, PortError, Protocol, PublishAt, PublishMode, ReturnMode};

pub(super) type Range = RangeInclusive<u16>;

/// What a text says, and no more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Spec {
    pub published: Option<Range>,
    pub target: Option<Range>,
    pub protocol: Option<Protocol>,
    pub mode: Option<PublishMode>,
    pub at: Option<PublishAt>,
    pub return_mode: Option<ReturnMode>,
}

pub(super) fn ports(text: &str) -> Result<Vec<PortConfig>, PortError> {
    let spec = Spec::read(text, Short::Publish)?;
    let target = spec.target.ok_or_else(|| PortError::NoTarget(text.to_owned()))?;
    let protocol = spec.protocol.unwrap_or_default();
    let published: Vec<u16> = match spec.published {
        Some(range) if range.len() != target.len() => return Err(PortError::RangeLength(text.to_owned())),
        Some(range) => range.collect(),
        None => vec![0; target.len()],
    };
    let ports = published.into_iter().zip(target).map(|(published, target)| PortConfig {
        published,
        target,
        protocol,
        mode: spec.mode.unwrap_or_default(),
        at: spec.at.unwrap_or_default(),
        return_mode: spec.return_mode.unwrap_or_default(),
    });
    Ok(ports.collect())
}

/// What a lone port of the short form is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// The target; the managers choose the published one.
    Publish,
    /// The published one, of whatever target.
    Find,
}

impl Spec {
    pub fn read(text: &str, short: Short) -> Result<Self, PortError> {
        let mut spec = Self::default();
        for (index, part) in text.split(',').enumerate() {
            match part.split_once('=') {
                Some((key, value)) => spec.field(key, value, part)?,
                None if index == 0 => spec.short(part, short)?,
                None => return Err(PortError::Field(part.to_owned())),
            }
        }
        Ok(spec)
    }

    fn short(&mut self, text: &str, form: Short) -> Result<(), PortError> {
        // A place has no slash, so the last one is the protocol's.
        let ports = match text.rsplit_once('/') {
            Some((ports, protocol)) => {
                self.protocol = Some(protocol.parse()?);
                ports
            }
            None => text,
        };
        let (place, published, target) = match (&*split(ports), form) {
            (&[target], Short::Publish) => (None, None, Some(target)),
            (&[published], Short::Find) => (None, Some(published), None),
            // In `eth0:80` the port is what clients use; to publish, the target has to be said too.
            (&[place, published], Short::Find) if range(place).is_err() => {
                (Some(place), Some(published), None)
            }
            (&[published, target], _) => (None, Some(published), Some(target)),
            (&[place, "", target], Short::Publish) => (Some(place), None, Some(target)),
            (&[place, published, target], _) => (Some(place), Some(published), Some(target)),
            _ => return Err(PortError::Place(ports.to_owned())),
        };
        self.at = place.map(str::parse).transpose()?;
        self.published = published.map(range).transpose()?;
        self.target = target.map(range).transpose()?;
        Ok(())
    }

    fn field(&mut self, key: &str, value: &str, whole: &str) -> Result<(), PortError> {
        match key {
            "published" => set(&mut self.published, range(value)?, whole),
            "target" => set(&mut self.target, range(value)?, whole),
            "protocol" => set(&mut self.protocol, value.parse()?, whole),
            "mode" => set(&mut self.mode, value.parse()?, whole),
            "return" => set(&mut self.return_mode, value.parse()?, whole),
            "address" => match value.parse()? {
                PublishAt::Interface(_) => Err(PortError::Place(value.to_owned())),
                at => set(&mut self.at, at, whole),
            },
            "interface" => {
                let name = value.parse().map_err(|_| PortError::Place(value.to_owned()))?;
                set(&mut self.at, PublishAt::Interface(name), whole)
            }
            _ => Err(PortError::Field(whole.to_owned())),
        }
    }
}

fn set<T>(slot: &mut Option<T>, value: T, whole: &str) -> Result<(), PortError> {
    if slot.replace(value).is_some() { Err(PortError::Twice(whole.to_owned())) } else { Ok(()) }
}

/// Splits at the colons outside brackets.
fn split(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.split(|c: char| {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            _ => {}
        }
        c == ':' && !inside
    })
    .collect()
}

fn range(text: &str) -> Result<Range, PortError> {
    match text.split_once('-') {
        None => number(text).map(|n| n..=n),
        Some((first, last)) => match (number(first)?, number(last)?) {
            (first, last) if first <= last => Ok(first..=last),
            _ => Err(PortError::Range(text.to_owned())),
        },
    }
}

fn number(text: &str) -> Result<u16, PortError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(number) if number > 0 && digits => Ok(number),
        _ => Err(PortError::Number(text.to_owned())),
    }
}
