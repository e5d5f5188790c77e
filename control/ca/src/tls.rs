//! TLS 1.3 configurations that follow the node's identity as it is renewed.

use std::{error::Error, fmt, io, sync::Arc};

use arc_swap::ArcSwap;
use mesh_types::Role;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use thiserror::Error;

use crate::{CaDigest, Identity, IdentityError};

/// The DNS name in the certificates of nodes with this role; clients dial managers by the managers' one.
pub const fn server_name(role: Role) -> &'static str {
    match role {
        Role::Manager => "meshd-manager",
        Role::Worker => "meshd-worker",
    }
}

/// The manager's CA is not the one that the join token names: a wrong token, a wrong address, or somebody in between.
#[derive(Debug, Clone, Error)]
#[error("the manager's CA does not match the token's digest {expected}")]
pub struct DigestMismatch {
    /// The digest in the token.
    pub expected: CaDigest,
}

impl DigestMismatch {
    /// Looks for it behind an error of a connection.
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        behind(error).find_map(|error| error.downcast_ref())
    }
}

/// Whether a connection failed because the other's certificate is not valid by this node's clock.
pub fn is_out_of_time(error: &(dyn Error + 'static)) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    behind(error).any(|error| {
        let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() else { return false };
        matches!(why, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
    })
}

/// The error and all that it wraps, through the wrappers of rustls and `std::io`.
fn behind<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        // Neither of the two gives what it wraps as its source.
        if let Some(rustls::Error::Other(other)) = error.downcast_ref() {
            other.source()
        } else if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner as &(dyn Error + 'static))
        } else {
            error.source()
        }
    })
}

/// The identity in use. Replacing it changes what the next handshake shows and trusts; connections go on.
pub struct IdentityCell {
    current: ArcSwap<Loaded>,
}

struct Loaded {
    identity: Arc<Identity>,
    /// None while the key is locked: nothing can be shown then.
    certified: Option<Arc<CertifiedKey>>,
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
}

impl fmt::Debug for IdentityCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IdentityCell").field(&self.current()).finish()
    }
}

impl IdentityCell {
    /// A cell with the node's first identity.
    pub fn new(identity: Identity) -> Result<Arc<Self>, IdentityError> {
        let current = ArcSwap::from_pointee(Loaded::new(identity)?);
        Ok(Arc::new(Self { current }))
    }

    /// Uses `identity` from now on. On an error the one before stays in use.
    pub fn replace(&self, identity: Identity) -> Result<(), IdentityError> {
        self.current.store(Arc::new(Loaded::new(identity)?));
        Ok(())
    }

    /// The identity in use.
    pub fn current(&self) -> Arc<Identity> {
        self.current.load().identity.clone()
    }
}

impl Loaded {
    fn new(identity: Identity) -> Result<Self, IdentityError> {
        let provider = provider();
        let certified = identity.key().map(|key| {
            let key = PrivateKeyDer::from(key.clone_key());
            CertifiedKey::from_der(identity.chain().to_vec(), key, &provider).map(Arc::new)
        });
        let certified = certified.transpose()?;
        let roots = roots(identity.roots())?;
        let unusable = |_| rustls::Error::General("the root certificate is no trust anchor".to_owned());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(unusable)?;
        let servers =
            WebPkiServerVerifier::builder_with_provider(roots, provider).build().map_err(unusable)?;
        Ok(Self { identity: Arc::new(identity), certified, clients, servers })
    }
}

/// For a manager's listener. Clients without a certificate are let in, because a joining node has none: the layer above
/// must ask for the peer's certificate on every other call. A certificate that is shown must be of this cluster.
pub fn server_config(cell: Arc<IdentityCell>) -> Result<Arc<ServerConfig>, IdentityError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(CellVerifier { cell: cell.clone(), algorithms: algorithms() }))
        .with_cert_resolver(Arc::new(CellResolver(cell)));
    // A resumed session would keep the trust of an earlier certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// For the page that a manager serves to browsers: shows its certificate, asks for none.
pub fn page_config(cell: Arc<IdentityCell>) -> Result<Arc<ServerConfig>, IdentityError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(CellResolver(cell)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// For a node that has a certificate: shows it, and accepts servers of this cluster that have the name dialled.
pub fn client_config(cell: Arc<IdentityCell>) -> Result<Arc<ClientConfig>, IdentityError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(CellVerifier {
            cell: cell.clone(),
            algorithms: algorithms(),
        }))
        .with_client_cert_resolver(Arc::new(CellResolver(cell)));
    Ok(finish(config))
}

/// For a node that joins: shows nothing, and accepts only a manager whose chain ends in the root with this digest.
/// Anything else fails with [`DigestMismatch`] or the certificate error.
pub fn join_client_config(digest: CaDigest) -> Result<Arc<ClientConfig>, IdentityError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedVerifier { digest, algorithms: algorithms() }))
        .with_no_client_auth();
    Ok(finish(config))
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn algorithms() -> rustls::crypto::WebPkiSupportedAlgorithms {
    aws_lc_rs::default_provider().signature_verification_algorithms
}

fn roots(certs: &[CertificateDer<'_>]) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for cert in certs {
        roots.add(cert.clone().into_owned())?;
    }
    Ok(Arc::new(roots))
}

#[derive(Debug)]
struct CellResolver(Arc<IdentityCell>);

impl rustls::server::ResolvesServerCert for CellResolver {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.current.load().certified.clone()
    }
}

impl rustls::client::ResolvesClientCert for CellResolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.current.load().certified.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.current.load().certified.is_some()
    }
}

#[derive(Debug)]
struct CellVerifier {
    cell: Arc<IdentityCell>,
    algorithms: rustls::crypto::WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct PinnedVerifier {
    digest: CaDigest,
    algorithms: rustls::crypto::WebPkiSupportedAlgorithms,
}

/// The parts of a verifier that do not depend on whom it trusts.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls12_signature(message, cert, dss, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, cert, dss, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

impl ClientCertVerifier for CellVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.cell.current.load().clients.verify_client_cert(end_entity, intermediates, now)
    }

    signatures!();
}

impl ServerCertVerifier for CellVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let current = self.cell.current.load();
        current.servers.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    signatures!();
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let root = intermediates.iter().find(|cert| CaDigest::of(cert) == self.digest);
        let mismatch = DigestMismatch { expected: self.digest };
        let root = root.ok_or_else(|| rustls::Error::Other(rustls::OtherError(Arc::new(mismatch))))?;
        let manager = ServerName::try_from(server_name(Role::Manager))
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::NotValidForName))?;
        WebPkiServerVerifier::builder_with_provider(roots(std::slice::from_ref(root))?, provider())
            .build()
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?
            .verify_server_cert(end_entity, intermediates, &manager, ocsp_response, now)
    }

    signatures!();
}
