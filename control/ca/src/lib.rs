//! The cluster's certificate authority and what nodes hold of it.
//!
//! A cluster has one [`RootCa`], made by `init` and kept in the managers' replicated state. A [`JoinToken`] carries
//! its digest, so that a new node knows the managers before it has a certificate. A node makes a key and a request
//! ([`Identity::request`]), a manager issues the certificate, and the node keeps both as its [`Identity`]. The TLS
//! configurations read the identity from an [`IdentityCell`], so that a renewed certificate is used by the next
//! connection without a restart. Who the other side is, is read from its certificate ([`PeerIdentity`]).
//!
//! This is the only crate that names `rcgen` and `x509-parser`.

#![forbid(unsafe_code)]

mod base36;
mod identity;
mod keyring;
mod peer;
mod root;
mod tls;
mod token;
mod unlock;

pub use identity::{Identity, IdentityError, NodeKey, NotValid, certificate_pem};
pub use keyring::{FoundKeyring, Keyring, KeyringError, LockedKeyring};
pub use peer::{PeerError, PeerIdentity};
pub use root::{CaDigest, CaError, DEFAULT_VALIDITY, RootCa};
pub use rustls_pki_types::CertificateDer;
pub use tls::{
    DigestMismatch, IdentityCell, client_config, is_out_of_time, join_client_config, page_config,
    server_config, server_name,
};
pub use token::{JoinToken, TokenError};
pub use unlock::{UnlockKey, UnlockKeyError};
