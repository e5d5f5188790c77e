//! A node's own key and certificate, and the file that keeps them.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use base64::prelude::{BASE64_STANDARD, Engine};
use rand::Rng;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls_pki_types::{
    CertificateDer, PrivatePkcs8KeyDer,
    pem::{PemObject, SectionKind},
};
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::prelude::X509Certificate;

use crate::{CaDigest, Keyring, KeyringError, PeerError, PeerIdentity, keyring, peer, root::LEAST_BACKDATE};

/// One file for key and certificates, so that one rename replaces them together.
const FILE: &str = "identity.pem";

/// The label of a private key that is sealed by the manager's keyring.
const SEALED_KEY: &str = "MESHD SEALED PRIVATE KEY";
/// What it is the contents of.
const WHAT: &[u8] = b"identity";

enum OwnKey {
    Plain(PrivatePkcs8KeyDer<'static>),
    Sealed(Vec<u8>),
}

/// A node's private key (ECDSA P-256, PKCS #8).
pub struct NodeKey(PrivatePkcs8KeyDer<'static>);

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(***)")
    }
}

/// Why an identity cannot be made, kept or read.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The key could not be made.
    #[error("making a key failed")]
    Generate(#[from] rcgen::Error),
    /// The certificates do not lead from the node's one to a root. Nothing was changed.
    #[error("the certificate chain cannot be used: {reason}")]
    Chain {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The certificate names no node. Nothing was changed.
    #[error("the node's certificate cannot be used")]
    Peer(#[from] PeerError),
    /// The key is not the one that the certificate is for. Nothing was changed.
    #[error("the private key does not belong to the certificate")]
    Key,
    /// A file could not be read or written; the identity kept before is still there.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there but holds no identity: damaged or cut short.
    #[error("{} is damaged: {reason}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key is sealed, and the manager's keyring does not open it.
    #[error("the private key cannot be sealed or opened")]
    Keyring(#[from] KeyringError),
    /// The TLS library refused the key or the root.
    #[error("the identity cannot be used for TLS")]
    Tls(#[from] rustls::Error),
}

/// A certificate is not valid at a time: it, or the clock that says so, is wrong.
#[derive(Debug, Clone, Error)]
#[error("the clock says {}, the certificate is valid from {} to {}", minute(*.now), minute(*.not_before), minute(*.not_after))]
pub struct NotValid {
    not_before: SystemTime,
    not_after: SystemTime,
    now: SystemTime,
}

/// A node's key, its certificates and who they make it.
pub struct Identity {
    key: OwnKey,
    chain: Vec<CertificateDer<'static>>,
    /// The one that the leaf comes from first.
    roots: Vec<CertificateDer<'static>>,
    own: PeerIdentity,
    not_before: SystemTime,
    not_after: SystemTime,
    ca_not_after: SystemTime,
    renew_at: SystemTime,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("own", &self.own).field("not_after", &self.not_after).finish()
    }
}

impl Identity {
    /// A new key, and the request (PKCS #10 in DER form) that a manager answers with a chain.
    pub fn request() -> Result<(NodeKey, Vec<u8>), IdentityError> {
        let key = KeyPair::generate()?;
        let csr = CertificateParams::default().serialize_request(&key)?;
        Ok((NodeKey(key.into()), csr.der().to_vec()))
    }

    /// The identity from a key and the certificates issued for it: the leaf, then the roots of the cluster and what
    /// lies between. Those signed by themselves are trusted; every other one must be signed by another in the list.
    /// Times are not checked: an expired identity still says who the node is.
    pub fn new(key: NodeKey, chain: Vec<CertificateDer<'static>>) -> Result<Self, IdentityError> {
        Self::with_key(OwnKey::Plain(key.0), chain)
    }

    fn with_key(key: OwnKey, chain: Vec<CertificateDer<'static>>) -> Result<Self, IdentityError> {
        let own = PeerIdentity::from_certs(&chain)?;
        let parsed = chain.iter().map(peer::parse).collect::<Result<Vec<_>, _>>()?;
        let (leaf, authorities) = parsed.split_first().ok_or(PeerError::None)?;
        let is_root = |cert: &X509Certificate<'_>| signed_by(cert, cert);
        let mut roots: Vec<&X509Certificate<'_>> = authorities.iter().filter(|cert| is_root(cert)).collect();
        if roots.is_empty() {
            return Err(IdentityError::Chain { reason: "the root certificate is missing" });
        }
        if !authorities.iter().all(|cert| roots.iter().any(|root| signed_by(cert, root))) {
            return Err(IdentityError::Chain { reason: "a certificate between leaf and root is of no root" });
        }
        if !authorities.iter().any(|issuer| signed_by(leaf, issuer)) {
            return Err(IdentityError::Chain { reason: "the node's certificate is of no root" });
        }
        roots.sort_by_key(|root| !signed_by(leaf, root));
        let ca_not_after = roots.first().map_or(0, |root| root.validity().not_after.timestamp());
        if let OwnKey::Plain(key) = &key {
            let pair = KeyPair::from_pkcs8_der_and_sign_algo(key, &rcgen::PKCS_ECDSA_P256_SHA256)
                .map_err(|_| IdentityError::Key)?;
            if pair.subject_public_key_info() != leaf.public_key().raw {
                return Err(IdentityError::Key);
            }
        }
        let not_after = instant(leaf.validity().not_after.timestamp());
        let not_before = instant(leaf.validity().not_before.timestamp());
        let renew_at = renew_at(not_before, not_after);
        let roots = roots.iter().map(|root| CertificateDer::from(root.as_raw().to_vec())).collect();
        drop(parsed);
        Ok(Self {
            key,
            chain,
            roots,
            own,
            not_before,
            not_after,
            ca_not_after: instant(ca_not_after),
            renew_at,
        })
    }

    /// Who this node is.
    pub fn own(&self) -> PeerIdentity {
        self.own
    }

    /// The certificates, leaf first. A server shows all of them, for joining nodes know only a root's digest.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The roots that this node trusts: the cluster's, and during a change-over the earlier one too.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The digest of the root that the certificate is of. After joining it must equal the token's, unless the CA is
    /// being changed.
    pub fn digest(&self) -> Option<CaDigest> {
        self.roots.first().map(CaDigest::of)
    }

    /// The private key; none while it is locked.
    pub(crate) fn key(&self) -> Option<&PrivatePkcs8KeyDer<'static>> {
        match &self.key {
            OwnKey::Plain(key) => Some(key),
            OwnKey::Sealed(_) => None,
        }
    }

    /// Whether the private key is sealed, so that this identity cannot be shown to anybody yet.
    pub fn is_locked(&self) -> bool {
        self.key().is_none()
    }

    /// The same with its key opened by `keyring`.
    pub fn unlock(&self, keyring: &Keyring) -> Result<Self, IdentityError> {
        let key = match &self.key {
            OwnKey::Plain(key) => key.clone_key(),
            OwnKey::Sealed(sealed) => keyring.open(WHAT, sealed)?.into(),
        };
        Self::with_key(OwnKey::Plain(key), self.chain.clone())
    }

    /// When the certificate begins: as long before it was made as it ends after, and an hour at least.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Whether the certificate has begun and not ended.
    pub fn check_time(&self, now: SystemTime) -> Result<(), NotValid> {
        let Self { not_before, not_after, .. } = *self;
        if (not_before..=not_after).contains(&now) {
            return Ok(());
        }
        Err(NotValid { not_before, not_after, now })
    }

    /// When the certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// When the root ends that the certificate is of: the cluster's CA.
    pub fn ca_not_after(&self) -> SystemTime {
        self.ca_not_after
    }

    /// When to renew: at a random point between half and four fifths of the time that it was issued for. So nodes that
    /// joined together do not renew together, and managers may be away for the last fifth.
    pub fn renew_at(&self) -> SystemTime {
        self.renew_at
    }

    /// Whether a node of this state folder has an identity.
    pub fn exists(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// Keeps the identity in `dir` (which must exist), readable by its owner only. After a crash at any moment the
    /// file holds either the old or the new identity.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        self.save_by(dir, None)
    }

    /// The same, with the private key sealed if `keyring` is.
    pub fn save_by(&self, dir: &Path, keyring: Option<&Keyring>) -> Result<(), IdentityError> {
        let path = dir.join(FILE);
        let mut text = match (&self.key, keyring.filter(|keyring| keyring.lock().is_some())) {
            (OwnKey::Sealed(sealed), _) => pem(SEALED_KEY, sealed),
            (OwnKey::Plain(key), None) => pem("PRIVATE KEY", key.secret_pkcs8_der()),
            (OwnKey::Plain(key), Some(keyring)) => {
                pem(SEALED_KEY, &keyring.seal(WHAT, key.secret_pkcs8_der())?)
            }
        };
        for cert in &self.chain {
            text.push_str(&pem("CERTIFICATE", cert));
        }
        keyring::replace(&path, text.as_bytes()).map_err(|source| IdentityError::Io {
            action: "write",
            path,
            source,
        })
    }

    /// The identity kept in `dir`, locked if its key is sealed. Every error names the file.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(source) => return Err(IdentityError::Io { action: "read", path, source }),
        };
        parse(&text).map_err(|reason| IdentityError::Damaged { path, reason })
    }
}

/// The key that is sealed in a section of our own.
fn sealed_key(text: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let text = std::str::from_utf8(text).map_err(|e| e.to_string())?;
    let Some((_, rest)) = text.split_once(&format!("-----BEGIN {SEALED_KEY}-----")) else { return Ok(None) };
    let (body, _) = rest
        .split_once(&format!("-----END {SEALED_KEY}-----"))
        .ok_or_else(|| "its private key is cut short".to_owned())?;
    let body: String = body.split_ascii_whitespace().collect();
    BASE64_STANDARD.decode(body).map(Some).map_err(|e| e.to_string())
}

fn parse(text: &[u8]) -> Result<Identity, String> {
    let mut key = None;
    let mut chain = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        match section.map_err(|e| e.to_string())? {
            (SectionKind::PrivateKey, der) if key.is_none() => key = Some(der.into()),
            (SectionKind::Certificate, der) => chain.push(der.into()),
            (kind, _) => return Err(format!("it holds an unexpected section {kind:?}")),
        }
    }
    let key = match (key, sealed_key(text)?) {
        (Some(key), None) => OwnKey::Plain(key),
        (None, Some(sealed)) => OwnKey::Sealed(sealed),
        (None, None) => return Err("it holds no private key".to_owned()),
        (Some(_), Some(_)) => return Err("it holds two private keys".to_owned()),
    };
    Identity::with_key(key, chain).map_err(|e| match e {
        IdentityError::Peer(inner) => inner.to_string(),
        other => other.to_string(),
    })
}

/// RFC 7468 text of a certificate.
pub fn certificate_pem(cert: &CertificateDer<'_>) -> String {
    pem("CERTIFICATE", cert)
}

/// RFC 7468 text of `der`.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let body = BASE64_STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for (i, c) in body.chars().enumerate() {
        if i > 0 && i % 64 == 0 {
            text.push('\n');
        }
        text.push(c);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}

fn signed_by(cert: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    cert.issuer() == issuer.subject()
        && issuer.is_ca()
        && cert.verify_signature(Some(issuer.public_key())).is_ok()
}

fn renew_at(not_before: SystemTime, not_after: SystemTime) -> SystemTime {
    let whole = not_after.duration_since(not_before).unwrap_or_default();
    // It began as long before it was made as it ends after that, unless that is less than the least.
    let issued = not_before + (whole / 2).max(LEAST_BACKDATE).min(whole);
    let life = not_after.duration_since(issued).unwrap_or_default();
    issued + life.mul_f64(rand::rng().random_range(0.5..0.8))
}

/// Date and minute, UTC.
fn minute(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(since).unwrap_or(i64::MAX);
    match OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(at) => format!("{} {:02}:{:02} UTC", at.date(), at.hour(), at.minute()),
        // Beyond the year 9999.
        Err(_) => format!("{seconds} s since 1970"),
    }
}

fn instant(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests;
