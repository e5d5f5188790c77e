//! Who holds a certificate.

use mesh_types::{ClusterId, NodeId, Role};
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::{
    oid_registry::OID_X509_SERIALNUMBER,
    prelude::{AttributeTypeAndValue, FromDer, X509Certificate},
};

/// The node on the other side of a connection, as its verified certificate names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The node.
    pub node: NodeId,
    /// What it may do.
    pub role: Role,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Which state of the cluster's CA the certificate was made in: 1 at first, more with every rotation.
    pub generation: u64,
}

/// Why a certificate names no node.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeerError {
    /// The other side showed no certificate.
    #[error("the peer showed no certificate")]
    None,
    /// Not a certificate.
    #[error("not an X.509 certificate in DER form")]
    Malformed,
    /// A field of the subject is missing, doubled, or holds something else than this cluster's CA writes.
    #[error("the certificate's subject has no usable {field}")]
    Field {
        /// `node id (CN)`, `role (OU)`, `cluster id (O)` or `generation (serialNumber)`.
        field: &'static str,
    },
}

impl PeerIdentity {
    /// Reads the first certificate of a chain. It checks no signature: only pass chains that TLS has verified.
    pub fn from_certs(chain: &[CertificateDer<'_>]) -> Result<Self, PeerError> {
        let leaf = chain.first().ok_or(PeerError::None)?;
        let parsed = parse(leaf)?;
        Ok(Self {
            node: field("node id (CN)", parsed.subject().iter_common_name())?,
            role: field("role (OU)", parsed.subject().iter_organizational_unit())?,
            cluster: organization(&parsed)?,
            generation: field(
                "generation (serialNumber)",
                parsed.subject().iter_by_oid(&OID_X509_SERIALNUMBER),
            )?,
        })
    }
}

/// A certificate's fields.
pub(crate) fn parse<'a>(cert: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PeerError> {
    match X509Certificate::from_der(cert.as_ref()) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(PeerError::Malformed),
    }
}

/// The cluster that a certificate's subject names.
pub(crate) fn organization(cert: &X509Certificate<'_>) -> Result<ClusterId, PeerError> {
    field("cluster id (O)", cert.subject().iter_organization())
}

fn field<'a, T: std::str::FromStr>(
    field: &'static str,
    mut values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
) -> Result<T, PeerError> {
    let bad = PeerError::Field { field };
    match (values.next(), values.next()) {
        (Some(value), None) => value.as_str().ok().and_then(|text| text.parse().ok()).ok_or(bad),
        _ => Err(bad),
    }
}
