//! Join tokens: `MESHTKN-1-<CA digest>-<secret>`.

use std::{fmt, str::FromStr};

use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::{CaDigest, base36, base36::Fault};

const PREFIX: &str = "MESHTKN";
const VERSION: &str = "1";

/// What lets a node into the cluster: the digest by which it knows the managers, and the secret by which they know it.
///
/// Which role it gives is not written in it: the managers hold one secret per role.
#[derive(Clone)]
pub struct JoinToken {
    digest: CaDigest,
    secret: [u8; 16],
}

/// Why a text is not a join token. Nothing of the secret is shown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It does not begin as tokens do.
    #[error("a join token begins with {PREFIX}-, this does not")]
    Prefix,
    /// A form that this version does not know.
    #[error("join token version {0:?} is not known here; this version knows {VERSION}")]
    Version(String),
    /// Too few or too many parts.
    #[error(
        "a join token has 4 parts ({PREFIX}-{VERSION}-<CA digest>-<secret>), this has {0}: was it cut off?"
    )]
    Parts(usize),
    /// A part is too short or too long.
    #[error("the join token's {part} has {found} characters instead of {expected}: was it cut off?")]
    Length {
        /// `CA digest` or `secret`.
        part: &'static str,
        /// Characters it should have.
        expected: usize,
        /// Characters it has.
        found: usize,
    },
    /// A part holds something else than digits and small letters.
    #[error("the join token's {part} has only the characters 0-9 and a-z, not {found:?}")]
    Character {
        /// `CA digest` or `secret`.
        part: &'static str,
        /// The character.
        found: char,
    },
    /// A part is a number that no token has.
    #[error("the join token's {part} is mangled")]
    Overflow {
        /// `CA digest` or `secret`.
        part: &'static str,
    },
}

impl JoinToken {
    /// The token for a CA and one role's secret.
    pub fn new(digest: CaDigest, secret: [u8; 16]) -> Self {
        Self { digest, secret }
    }

    /// A new secret from the operating system's randomness.
    pub fn random_secret() -> [u8; 16] {
        rand::random()
    }

    /// The digest of the CA that the managers must show.
    pub fn digest(&self) -> &CaDigest {
        &self.digest
    }

    /// The secret, to be sent to a manager that showed the right CA and to nobody else.
    pub fn secret(&self) -> &[u8; 16] {
        &self.secret
    }

    /// Whether two secrets are the same, in a time that does not tell where they differ.
    pub fn secrets_match(given: &[u8], expected: &[u8; 16]) -> bool {
        given.ct_eq(expected).into()
    }
}

impl PartialEq for JoinToken {
    fn eq(&self, other: &Self) -> bool {
        (self.digest.as_bytes().ct_eq(other.digest.as_bytes()) & self.secret.ct_eq(&other.secret)).into()
    }
}

impl Eq for JoinToken {}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({PREFIX}-{VERSION}-{}-***)", self.digest)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}-{VERSION}-{}-{}", self.digest, base36::encode(&self.secret))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = text.trim().split('-').collect();
        if parts.first() != Some(&PREFIX) {
            return Err(TokenError::Prefix);
        }
        if let Some(version) = parts.get(1).filter(|v| **v != VERSION) {
            return Err(TokenError::Version((*version).chars().take(16).collect()));
        }
        let &[_, _, digest, secret] = parts.as_slice() else {
            return Err(TokenError::Parts(parts.len()));
        };
        Ok(Self { digest: CaDigest::from_bytes(part("CA digest", digest)?), secret: part("secret", secret)? })
    }
}

fn part<const N: usize>(part: &'static str, text: &str) -> Result<[u8; N], TokenError> {
    base36::decode(text).map_err(|fault| match fault {
        Fault::Length(found) => TokenError::Length { part, expected: base36::len(N), found },
        Fault::Character(found) => TokenError::Character { part, found },
        Fault::Overflow => TokenError::Overflow { part },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token() -> JoinToken {
        JoinToken::new(CaDigest::from_bytes([7; 32]), [9; 16])
    }

    #[test]
    fn errors_name_the_part() {
        let text = token().to_string();
        let parse = |text: &str| text.parse::<JoinToken>().unwrap_err();
        assert_eq!(parse(""), TokenError::Prefix);
        assert_eq!(parse("SWMTKN-1-a-b"), TokenError::Prefix);
        assert_eq!(parse(&text.replace("-1-", "-2-")), TokenError::Version("2".into()));
        assert_eq!(parse("MESHTKN"), TokenError::Parts(1));
        assert_eq!(parse(&format!("{text}-")), TokenError::Parts(5));
        let length = TokenError::Length { part: "secret", expected: 25, found: 24 };
        assert_eq!(parse(&text[..text.len() - 1]), length);
        let digest = TokenError::Length { part: "CA digest", expected: 50, found: 3 };
        assert_eq!(parse("MESHTKN-1-abc-def"), digest);
        let upper = format!("{}A", &text[..text.len() - 1]);
        assert_eq!(parse(&upper), TokenError::Character { part: "secret", found: 'A' });
        let large = format!("MESHTKN-1-{}-{}", "z".repeat(50), "0".repeat(25));
        assert_eq!(parse(&large), TokenError::Overflow { part: "CA digest" });
    }

    #[test]
    fn debug_hides_the_secret() {
        let text = token().to_string();
        let secret = text.rsplit('-').next().unwrap();
        assert!(!format!("{:?}", token()).contains(secret));
        assert!(text.contains(secret));
    }

    #[test]
    fn secrets_compare() {
        assert!(JoinToken::secrets_match(&[9; 16], &[9; 16]));
        assert!(!JoinToken::secrets_match(&[9; 15], &[9; 16]));
        assert!(!JoinToken::secrets_match(&[8; 16], &[9; 16]));
    }

    proptest! {
        #[test]
        fn round_trips(digest: [u8; 32], secret: [u8; 16]) {
            let token = JoinToken::new(CaDigest::from_bytes(digest), secret);
            prop_assert_eq!(&token.to_string().parse::<JoinToken>().unwrap(), &token);
            prop_assert_eq!(format!(" {token}\n").parse::<JoinToken>().unwrap(), token);
        }

        #[test]
        fn noise_never_panics(text in ".{0,120}", tail in "[0-9a-zA-Z-]{0,90}") {
            let _ = text.parse::<JoinToken>();
            let _ = format!("MESHTKN-1-{tail}").parse::<JoinToken>();
        }
    }
}
