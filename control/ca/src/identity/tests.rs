use std::os::unix::fs::PermissionsExt;

use mesh_types::{ClusterId, NodeId, Role};

use super::*;
use crate::{DEFAULT_VALIDITY, RootCa};

fn issued() -> (NodeKey, Vec<CertificateDer<'static>>) {
    let now = SystemTime::now();
    let ca = RootCa::generate(ClusterId::from_u128(5), now).unwrap();
    let (key, csr) = Identity::request().unwrap();
    let chain = ca.issue(&csr, NodeId::from_u128(7), Role::Manager, now, DEFAULT_VALIDITY).unwrap();
    (key, chain)
}

fn identity() -> Identity {
    let (key, chain) = issued();
    Identity::new(key, chain).unwrap()
}

#[test]
fn survives_a_save() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!Identity::exists(dir.path()));
    identity().save(dir.path()).unwrap();
    let second = identity();
    second.save(dir.path()).unwrap();
    let loaded = Identity::load(dir.path()).unwrap();
    assert_eq!((loaded.own(), loaded.chain()), (second.own(), second.chain()));
    assert_eq!(loaded.key(), second.key());
    let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap()).collect();
    assert_eq!(files.len(), 1, "no temporary file stays");
    assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn it_is_known_when_the_certificate_and_its_ca_end() {
    let now = SystemTime::now();
    let identity = identity();
    let left = |end: SystemTime| end.duration_since(now).unwrap().as_secs() / 86_400;
    assert!((89..=90).contains(&left(identity.not_after())), "{:?}", identity.not_after());
    assert!((7299..=7300).contains(&left(identity.ca_not_after())), "{:?}", identity.ca_not_after());
}

#[test]
fn a_left_over_temporary_file_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join("identity.pem.new");
    fs::write(&stale, "half").unwrap();
    fs::set_permissions(&stale, fs::Permissions::from_mode(0o666)).unwrap();
    identity().save(dir.path()).unwrap();
    let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Identity::load(dir.path()).unwrap_err();
    assert!(missing.to_string().contains("identity.pem"), "{missing}");
    let nowhere = identity().save(&dir.path().join("nowhere")).unwrap_err();
    assert!(nowhere.to_string().contains("nowhere/identity.pem"), "{nowhere}");
}

#[test]
fn every_truncation_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    identity().save(dir.path()).unwrap();
    let path = dir.path().join(FILE);
    let whole = fs::read(&path).unwrap();
    // Without its last line break the file still says everything.
    for len in (0..whole.len() - 1).step_by(7) {
        fs::write(&path, &whole[..len]).unwrap();
        let error = Identity::load(dir.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }), "{len}: {error}");
    }
    fs::write(&path, [0xff; 300]).unwrap();
    assert!(Identity::load(dir.path()).is_err());
}

#[test]
fn refuses_what_does_not_belong_together() {
    let (key, chain) = issued();
    let (other_key, other_chain) = issued();
    let made = |key, chain: &[CertificateDer<'static>]| Identity::new(key, chain.to_vec());
    assert!(matches!(made(other_key, &chain), Err(IdentityError::Key)));
    let crossed = [chain[0].clone(), other_chain[1].clone()];
    assert!(matches!(made(key, &crossed), Err(IdentityError::Chain { .. })));
    let (key, chain) = issued();
    assert!(matches!(made(key, &chain[..1]), Err(IdentityError::Chain { .. })));
    let (key, _) = issued();
    assert!(matches!(made(key, &[]), Err(IdentityError::Peer(PeerError::None))));
}

#[test]
fn renews_between_half_and_four_fifths_of_its_life() {
    let now = SystemTime::now();
    let points: Vec<_> =
        (0..20).map(|_| identity().renew_at().duration_since(now).unwrap().as_secs()).collect();
    let (life, slack) = (DEFAULT_VALIDITY.as_secs(), 600);
    assert!(points.iter().all(|at| (life / 2 - slack..life * 4 / 5 + slack).contains(at)), "{points:?}");
    assert!(points.iter().any(|at| at.abs_diff(points[0]) > 3600), "not all at once: {points:?}");
    assert!(!format!("{:?}", identity()).contains("PRIVATE"));
}

#[test]
fn a_certificate_of_another_time_is_told() {
    let (day, made) =
        (Duration::from_secs(86_400), SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 86_400));
    let ca = RootCa::generate(ClusterId::from_u128(1), made).unwrap();
    let (key, csr) = Identity::request().unwrap();
    let chain = ca.issue(&csr, NodeId::from_u128(1), Role::Worker, made, 10 * day).unwrap();
    let identity = Identity::new(key, chain).unwrap();
    for now in [made - 9 * day, made, made + 9 * day] {
        identity.check_time(now).unwrap();
    }
    for (now, word) in [(made - 11 * day, "2024-09-23 00:00"), (made + 11 * day, "2024-10-15 00:00")] {
        let refused = identity.check_time(now).unwrap_err().to_string();
        assert!(refused.contains(word) && refused.contains("from 2024-09-24 00:00"), "{refused}");
    }
}

#[test]
fn a_change_over_trusts_both_roots() {
    let now = SystemTime::now();
    let cluster = ClusterId::from_u128(5);
    let (old, new) = (RootCa::generate(cluster, now).unwrap(), RootCa::generate(cluster, now).unwrap());
    let cross = pem("CERTIFICATE", &old.cross_sign(&new, now).unwrap());
    let digests = [new.digest(), old.digest()];
    let ca = new.at(2).after(&old.to_pem().0, &cross).unwrap();
    assert_eq!(ca.digests().collect::<Vec<_>>(), digests);
    let (key, csr) = Identity::request().unwrap();
    let chain = ca.issue(&csr, NodeId::from_u128(7), Role::Worker, now, DEFAULT_VALIDITY).unwrap();
    let identity = Identity::new(key, chain).unwrap();
    assert_eq!(identity.own().generation, 2);
    assert_eq!(identity.roots().iter().map(CaDigest::of).collect::<Vec<_>>(), digests);
    let dir = tempfile::tempdir().unwrap();
    identity.save(dir.path()).unwrap();
    let loaded = Identity::load(dir.path()).unwrap();
    assert_eq!((loaded.roots(), loaded.digest()), (identity.roots(), Some(digests[0])));
}

#[test]
fn a_locked_identity_shows_who_it_is_and_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let keyring = crate::Keyring::create(dir).unwrap();
    let identity = identity();
    identity.save_by(dir, Some(&keyring)).unwrap();
    assert!(!Identity::load(dir).unwrap().is_locked(), "the ring lies open");

    keyring.lock_by(Some(crate::UnlockKey::random())).unwrap();
    identity.save_by(dir, Some(&keyring)).unwrap();
    let text = fs::read_to_string(dir.join(FILE)).unwrap();
    assert!(!text.contains("BEGIN PRIVATE KEY"));
    let locked = Identity::load(dir).unwrap();
    assert!(locked.is_locked() && locked.own() == identity.own());
    assert_eq!(locked.unlock(&keyring).unwrap().key(), identity.key());
    let other_dir = tempfile::tempdir().unwrap();
    let other = crate::Keyring::create(other_dir.path()).unwrap();
    assert!(matches!(locked.unlock(&other), Err(IdentityError::Keyring(KeyringError::UnknownKey))));
    for len in (0..text.len() - 1).step_by(11) {
        fs::write(dir.join(FILE), &text[..len]).unwrap();
        assert!(Identity::load(dir).is_err(), "{len}");
    }
}
