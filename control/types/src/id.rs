//! Identifiers: 128 random bits, written as 25 characters of base 36 as Swarm writes its own.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Characters of an id's text form.
const LEN: usize = 25;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    /// The text does not have 25 characters.
    #[error("an id has {LEN} characters, this has {0}")]
    Length(usize),
    /// A character outside `0-9a-z`.
    #[error("an id has only the characters 0-9 and a-z, not {0:?}")]
    Character(char),
    /// The number does not fit into 128 bits.
    #[error("the id is too large")]
    Overflow,
}

fn encode(mut value: u128) -> [u8; LEN] {
    let mut out = [b'0'; LEN];
    for slot in out.iter_mut().rev() {
        *slot = DIGITS[(value % 36) as usize];
        value /= 36;
    }
    out
}

fn decode(text: &str) -> Result<u128, IdError> {
    if text.len() != LEN {
        return Err(IdError::Length(text.chars().count()));
    }
    text.chars().try_fold(0u128, |value, c| {
        let digit = match c {
            '0'..='9' | 'a'..='z' => c.to_digit(36).ok_or(IdError::Character(c))?,
            _ => return Err(IdError::Character(c)),
        };
        value.checked_mul(36).and_then(|v| v.checked_add(u128::from(digit))).ok_or(IdError::Overflow)
    })
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// A new id from the operating system's randomness.
            pub fn random() -> Self {
                Self(rand::random())
            }

            /// The id with this number, for deterministic callers and tests.
            pub const fn from_u128(value: u128) -> Self {
                Self(value)
            }

            /// The number behind the id.
            pub const fn as_u128(self) -> u128 {
                self.0
            }

            /// The first 12 characters, as lists show them.
            pub fn short(self) -> String {
                let mut text = self.to_string();
                text.truncate(12);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = encode(self.0);
                f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                decode(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.collect_str(self) } else { self.0.to_be_bytes().serialize(s) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(d).map(|b| Self(u128::from_be_bytes(b)))
                }
            }
        }
    )*};
}

ids! {
    /// A cluster, made by `init`.
    ClusterId
    /// A node of the cluster; the common name of its certificate.
    NodeId
    /// A network.
    NetworkId
    /// A service.
    ServiceId
    /// A task: one namespace attached to one or more networks.
    TaskId
}

/// Names an endpoint on its own node; travels in the inner Ethernet address of ingress packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LocalEndpointId(pub u32);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips(value: u128) {
            let id = NodeId::from_u128(value);
            prop_assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
            prop_assert_eq!(id.to_string().len(), LEN);
        }

        #[test]
        fn noise_never_panics(text in ".{0,40}") {
            let _ = text.parse::<TaskId>();
        }
    }

    #[test]
    fn refuses_what_is_not_an_id() {
        assert_eq!("abc".parse::<NodeId>(), Err(IdError::Length(3)));
        assert_eq!("A".repeat(25).parse::<NodeId>(), Err(IdError::Character('A')));
        assert_eq!("z".repeat(25).parse::<NodeId>(), Err(IdError::Overflow));
    }
}
