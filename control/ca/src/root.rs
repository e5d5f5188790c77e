//! The root CA: made at `init`, kept by the managers, signs every node's certificate.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use mesh_types::{ClusterId, NodeId, Role};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use crate::{base36, peer, tls};

/// How long a node's certificate is good for unless asked otherwise: 90 days.
pub const DEFAULT_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);
/// 20 years.
const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Certificates begin at least this long before they are made.
pub(crate) const LEAST_BACKDATE: Duration = Duration::from_secs(3600);
/// And at most; only roots and what signs them last longer.
const MOST_BACKDATE: Duration = Duration::from_secs(366 * 24 * 3600);
/// The subject's attribute that holds the CA's generation: `serialNumber` (RFC 4519, 2.31).
const GENERATION_OID: &[u64] = &[2, 5, 4, 5];

/// SHA-256 of the root certificate's DER form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CaDigest([u8; 32]);

impl CaDigest {
    /// The digest of a certificate.
    pub fn of(cert: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(cert.as_ref()).into())
    }

    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for CaDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&base36::encode(&self.0))
    }
}

impl fmt::Debug for CaDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaDigest({self})")
    }
}

/// Why the CA could not do something. No error leaves anything changed.
#[derive(Debug, Error)]
pub enum CaError {
    /// The stored root certificate or key cannot be used.
    #[error("the cluster's root {part} cannot be used: {reason}")]
    Root {
        /// `certificate` or `key`.
        part: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A node's certificate request cannot be accepted.
    #[error("the certificate request is refused: {reason}")]
    Request {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The times asked for cannot be written in a certificate.
    #[error("a certificate cannot be valid for {} seconds from now", .validity.as_secs())]
    Validity {
        /// The validity asked for.
        validity: Duration,
    },
    /// The cryptographic library failed.
    #[error("making a certificate failed")]
    Crypto(#[from] rcgen::Error),
}

/// The root CA with its key.
pub struct RootCa {
    key: KeyPair,
    cert: CertificateDer<'static>,
    cluster: ClusterId,
    generation: u64,
    /// While nodes change over from an earlier root: this one as signed by that, and that one.
    earlier: Option<(CertificateDer<'static>, CertificateDer<'static>)>,
}

impl fmt::Debug for RootCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCa").field("cluster", &self.cluster).field("digest", &self.digest()).finish()
    }
}

impl RootCa {
    /// A new CA for `cluster`: ECDSA P-256, good for 20 years.
    pub fn generate(cluster: ClusterId, now: SystemTime) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let mut params = params(now, ROOT_VALIDITY)?;
        // Two roots of a cluster never have one name: chains are built by names.
        let name = format!("meshd root CA {}", base36::encode(&rand::random::<[u8; 8]>()));
        name_ca(&mut params, cluster, &name);
        // One intermediate is allowed: a rotation signs the new root by the old one.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        let cert = params.self_signed(&key)?.der().clone();
        Ok(Self { key, cert, cluster, generation: 1, earlier: None })
    }

    /// `next` as signed by this root: whoever trusts only this one accepts certificates of `next` by it.
    pub fn cross_sign(&self, next: &RootCa, now: SystemTime) -> Result<CertificateDer<'static>, CaError> {
        let next_cert = peer::parse(&next.cert).map_err(|e| bad_cert(e.to_string()))?;
        let name = next_cert.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let name = name.ok_or_else(|| bad_cert("it has no name".to_owned()))?;
        let mut params = params(now, ROOT_VALIDITY)?;
        name_ca(&mut params, next.cluster, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let issuer = Issuer::from_ca_cert_der(&self.cert, &self.key)?;
        Ok(params.signed_by(&next.key, &issuer)?.der().clone())
    }

    /// The CA in its `generation`: what certificates say that they were made in.
    pub fn at(self, generation: u64) -> Self {
        Self { generation, ..self }
    }

    /// The CA while nodes change over to it: what it issues comes with `cross` (this root as signed by `root`, see
    /// [`RootCa::cross_sign`]) and with the earlier `root`.
    pub fn after(self, root_pem: &str, cross_pem: &str) -> Result<Self, CaError> {
        let read = |text: &str| {
            CertificateDer::from_pem_slice(text.as_bytes())
                .map_err(|e| bad_cert(format!("the earlier one: {e}")))
        };
        Ok(Self { earlier: Some((read(cross_pem)?, read(root_pem)?)), ..self })
    }

    /// The CA from what [`RootCa::to_pem`] gave.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let bad_key = |reason: String| CaError::Root { part: "key", reason };
        let cert =
            CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|e| bad_cert(e.to_string()))?;
        let key =
            PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|e| bad_key(e.to_string()))?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|e| bad_key(e.to_string()))?;
        let (cluster, spki) = {
            let parsed = peer::parse(&cert).map_err(|e| bad_cert(e.to_string()))?;
            let cluster = peer::organization(&parsed).map_err(|e| bad_cert(e.to_string()))?;
            (cluster, parsed.public_key().raw.to_vec())
        };
        if spki != key.subject_public_key_info() {
            return Err(bad_key("it does not belong to the root certificate".to_owned()));
        }
        Ok(Self { key, cert, cluster, generation: 1, earlier: None })
    }

    /// Certificate and key as PEM texts. The second is the cluster's greatest secret.
    pub fn to_pem(&self) -> (String, String) {
        (crate::identity::pem("CERTIFICATE", &self.cert), self.key.serialize_pem())
    }

    /// The root certificate.
    pub fn cert(&self) -> &CertificateDer<'static> {
        &self.cert
    }

    /// What join tokens carry.
    pub fn digest(&self) -> CaDigest {
        CaDigest::of(&self.cert)
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The digests that join tokens may carry: this root's first, then, during a change-over, the earlier one's.
    pub fn digests(&self) -> impl Iterator<Item = CaDigest> {
        std::iter::once(&self.cert).chain(self.earlier.iter().map(|(_, root)| root)).map(CaDigest::of)
    }

    /// A certificate for `node`: the leaf, then the root. During a change-over: the leaf, this root as signed by the
    /// earlier one, the earlier one, the root.
    ///
    /// Of the request only the public key counts (ECDSA P-256), and the proof that its holder has the private one:
    /// names and extensions that it claims are ignored.
    pub fn issue(
        &self,
        csr_der: &[u8],
        node: NodeId,
        role: Role,
        now: SystemTime,
        validity: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let public_key = requested_key(csr_der)?;
        let mut params = params(now, validity)?;
        let name = &mut params.distinguished_name;
        name.push(DnType::OrganizationName, self.cluster.to_string());
        name.push(DnType::OrganizationalUnitName, role.as_str());
        name.push(DnType::CommonName, node.to_string());
        name.push(DnType::from_oid(GENERATION_OID), self.generation.to_string());
        params.subject_alt_names = vec![SanType::DnsName(tls::server_name(role).try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(&self.cert, &self.key)?;
        let leaf = params.signed_by(&public_key, &issuer)?.der().clone();
        let earlier = self.earlier.iter().flat_map(|(cross, root)| [cross.clone(), root.clone()]);
        Ok(std::iter::once(leaf).chain(earlier).chain([self.cert.clone()]).collect())
    }
}

fn bad_cert(reason: String) -> CaError {
    CaError::Root { part: "certificate", reason }
}

fn name_ca(params: &mut CertificateParams, cluster: ClusterId, name: &str) {
    params.distinguished_name.push(DnType::OrganizationName, cluster.to_string());
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
}

fn params(now: SystemTime, validity: Duration) -> Result<CertificateParams, CaError> {
    let invalid = || CaError::Validity { validity };
    let unix = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| invalid())?;
    let at = |since: Duration| {
        let seconds = i64::try_from(since.as_secs()).ok()?;
        // GeneralizedTime has four digits for the year.
        OffsetDateTime::from_unix_timestamp(seconds).ok().filter(|t| t.year() <= 9999)
    };
    let mut params = CertificateParams::default();
    // As long before as after: nodes whose clocks are behind accept it, and what a manager issued whose clock was ahead is good
    // when that is right again. Nothing goes by the beginning; a node that is removed is refused by what was decided.
    let backdate = validity.clamp(LEAST_BACKDATE, MOST_BACKDATE);
    params.not_before = at(unix.saturating_sub(backdate)).ok_or_else(invalid)?;
    params.not_after = unix.checked_add(validity).and_then(at).ok_or_else(invalid)?;
    params.distinguished_name = DistinguishedName::new();
    let mut serial: [u8; 16] = rand::random();
    // Positive, and without a leading zero byte (RFC 5280, 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn requested_key(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, CaError> {
    let refuse = |reason| CaError::Request { reason };
    let (rest, csr) = X509CertificationRequest::from_der(csr_der)
        .map_err(|_| refuse("it is no PKCS #10 request in DER form"))?;
    if !rest.is_empty() {
        return Err(refuse("bytes follow after its end"));
    }
    let key = SubjectPublicKeyInfo::from_der(csr.certification_request_info.subject_pki.raw)
        .ok()
        .filter(|key| key.algorithm() == &rcgen::PKCS_ECDSA_P256_SHA256)
        .ok_or_else(|| refuse("its key is not of ECDSA P-256"))?;
    csr.verify_signature().map_err(|_| refuse("its signature does not fit its key"))?;
    Ok(key)
}

#[cfg(test)]
mod tests;
