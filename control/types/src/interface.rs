//! Names of network interfaces.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes of the longest interface name: the kernel's `IFNAMSIZ` less the closing NUL.
const MAX: usize = 15;

/// The name of a network interface: 1 to 15 printable ASCII characters, none of `/ : , =`, and not `.` or `..`.
///
/// The kernel (`dev_valid_name`) refuses only `/`, `:`, white space and the two dots; the others would make the text
/// form of a published port ambiguous.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName {
    // Padded with NUL, so that names compare as texts.
    bytes: [u8; MAX],
}

/// The text is no interface name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0:?} is not an interface name such as eth0: 1 to 15 printable characters, without '/', ':', ',' and '='"
)]
pub struct InterfaceNameError(String);

impl InterfaceName {
    /// Checks `text`; the error names it.
    pub fn new(text: &str) -> Result<Self, InterfaceNameError> {
        let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b',' | b'=');
        let mut bytes = [0; MAX];
        match bytes.get_mut(..text.len()) {
            Some(room) if !matches!(text, "" | "." | "..") && text.bytes().all(fits) => {
                room.copy_from_slice(text.as_bytes());
                Ok(Self { bytes })
            }
            _ => Err(InterfaceNameError(text.to_owned())),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|b| *b == 0).unwrap_or(MAX);
        // Only ASCII gets in.
        std::str::from_utf8(&self.bytes[..end]).unwrap_or_default()
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InterfaceName({self})")
    }
}

impl FromStr for InterfaceName {
    type Err = InterfaceNameError;
    fn from_str(text: &str) -> Result<Self, InterfaceNameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = InterfaceNameError;
    fn try_from(text: String) -> Result<Self, InterfaceNameError> {
        Self::new(&text)
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> Self {
        name.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_kernel() {
        for ok in ["eth0", "lo", "enp0s31f6.100", "wg-mesh", "exactly15chars.", "a"] {
            assert_eq!(InterfaceName::new(ok).unwrap().as_str(), ok);
        }
        for bad in ["", ".", "..", "sixteen_letters_", "a/b", "eth0:1", "e th", "a,b", "a=b", "é0", "a\0b"] {
            assert!(InterfaceName::new(bad).is_err(), "{bad}");
        }
        assert!(InterfaceName::new("eth0").unwrap() < InterfaceName::new("eth1").unwrap());
    }
}
