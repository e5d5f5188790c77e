use super::*;
use crate::{Identity, PeerIdentity};
use proptest::prelude::*;
use x509_parser::extensions::GeneralName;

const DAY: Duration = Duration::from_secs(86_400);

fn ca() -> RootCa {
    RootCa::generate(ClusterId::from_u128(5), SystemTime::now()).unwrap()
}

fn issue(ca: &RootCa, csr: &[u8]) -> Result<Vec<CertificateDer<'static>>, CaError> {
    ca.issue(csr, NodeId::from_u128(7), Role::Worker, SystemTime::now(), DEFAULT_VALIDITY)
}

#[test]
fn survives_pem() {
    let ca = ca();
    let (cert, key) = ca.to_pem();
    let again = RootCa::from_pem(&cert, &key).unwrap();
    assert_eq!((again.digest(), again.cluster()), (ca.digest(), ca.cluster()));
    let (node_key, csr) = Identity::request().unwrap();
    let identity = Identity::new(node_key, issue(&again, &csr).unwrap()).unwrap();
    assert_eq!(identity.digest(), Some(ca.digest()));
}

#[test]
fn bad_pem_names_the_part() {
    let (cert, key) = ca().to_pem();
    let (_, other_key) = ca().to_pem();
    let text = |cert: &str, key: &str| RootCa::from_pem(cert, key).unwrap_err().to_string();
    assert!(text(&cert[..80], &key).contains("root certificate"));
    assert!(text(&cert, &key[..60]).contains("root key"));
    assert!(text(&cert, &other_key).contains("does not belong"));
    assert!(text("", "").contains("root certificate"));
}

#[test]
fn the_request_decides_nothing_but_the_key() {
    let ca = ca();
    let key = KeyPair::generate().unwrap();
    let mut claims = CertificateParams::new(vec!["meshd-manager".to_owned()]).unwrap();
    claims.distinguished_name.push(DnType::OrganizationalUnitName, "manager");
    claims.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let csr = claims.serialize_request(&key).unwrap();
    let chain = issue(&ca, csr.der()).unwrap();

    let peer = PeerIdentity::from_certs(&chain).unwrap();
    let expected = PeerIdentity {
        node: NodeId::from_u128(7),
        role: Role::Worker,
        cluster: ClusterId::from_u128(5),
        generation: 1,
    };
    assert_eq!(peer, expected);
    let leaf = peer::parse(&chain[0]).unwrap();
    assert!(!leaf.is_ca());
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert!(matches!(names.as_slice(), [GeneralName::DNSName("meshd-worker")]));
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth && !usage.any);
}

#[test]
fn validity_is_backdated() {
    let (_, csr) = Identity::request().unwrap();
    let now = SystemTime::UNIX_EPOCH + 20_000 * DAY;
    let chain = ca().issue(&csr, NodeId::from_u128(1), Role::Manager, now, DAY).unwrap();
    let validity = peer::parse(&chain[0]).unwrap().validity().clone();
    assert_eq!(validity.not_before.timestamp(), 19_999 * 86_400, "as long before as after");
    assert_eq!(validity.not_after.timestamp(), 20_001 * 86_400);
    let short = ca().issue(&csr, NodeId::from_u128(1), Role::Manager, now, DAY / 48).unwrap();
    let validity = peer::parse(&short[0]).unwrap().validity().clone();
    assert_eq!(validity.not_before.timestamp(), 20_000 * 86_400 - 3_600, "an hour at least");
    let endless = ca().issue(&csr, NodeId::from_u128(1), Role::Manager, now, Duration::MAX);
    assert!(matches!(endless, Err(CaError::Validity { .. })));
}

#[test]
fn refuses_bad_requests() {
    let ca = ca();
    let (_, good) = Identity::request().unwrap();
    let mut forged = good.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let mut longer = good.clone();
    longer.push(0);
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let request = |key| CertificateParams::default().serialize_request(key).unwrap().der().to_vec();
    for bad in [forged, longer, good[..40].to_vec(), vec![], request(&ed25519), request(&p384)] {
        assert!(matches!(issue(&ca, &bad), Err(CaError::Request { .. })));
    }
    assert!(issue(&ca, &good).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn noise_never_panics(noise: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
        let _ = requested_key(&noise);
        let (_, mut csr) = Identity::request().unwrap();
        let at = at.index(csr.len());
        csr[at] ^= 1 << bit;
        let _ = requested_key(&csr);
        let mut cert = ca().cert().to_vec();
        let at = at % cert.len();
        cert[at] ^= 1 << bit;
        let _ = PeerIdentity::from_certs(&[CertificateDer::from(cert), CertificateDer::from(noise)]);
    }
}
