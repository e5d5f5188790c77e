use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

fn found(dir: &Path) -> FoundKeyring {
    Keyring::find(dir).unwrap().unwrap()
}

fn locked(dir: &Path) -> LockedKeyring {
    match found(dir) {
        FoundKeyring::Locked(locked) => locked,
        FoundKeyring::Open(_) => panic!("it lies open"),
    }
}

#[test]
fn a_ring_is_locked_changed_and_opened() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    assert!(Keyring::find(dir).unwrap().is_none());
    let ring = Keyring::create(dir).unwrap();
    let early = ring.seal(b"log 1", b"first").unwrap();
    let FoundKeyring::Open(same) = found(dir) else { panic!("it is sealed") };
    assert_eq!(same.open(b"log 1", &early).unwrap(), b"first");

    let (one, other) = (UnlockKey::random(), UnlockKey::random());
    ring.lock_by(Some(one.clone())).unwrap();
    assert!(!ring.is_current(&early), "the key that lay open seals nothing more");
    let late = ring.seal(b"log 2", b"second").unwrap();
    assert!(ring.is_current(&late));
    assert!(matches!(locked(dir).unlock(&other), Err(KeyringError::WrongKey)));
    let unlocked = locked(dir).unlock(&one).unwrap();
    assert_eq!(unlocked.lock(), Some(one.clone()));
    assert_eq!(unlocked.open(b"log 1", &early).unwrap(), b"first");
    assert_eq!(unlocked.open(b"log 2", &late).unwrap(), b"second");

    unlocked.lock_by(Some(other.clone())).unwrap();
    assert!(matches!(locked(dir).unlock(&one), Err(KeyringError::WrongKey)));
    locked(dir).unlock(&other).unwrap();
    unlocked.lock_by(None).unwrap();
    assert!(matches!(found(dir), FoundKeyring::Open(_)));

    let last = unlocked.seal(b"log 3", b"third").unwrap();
    unlocked.forget_earlier().unwrap();
    assert!(matches!(unlocked.open(b"log 1", &early), Err(KeyringError::UnknownKey)));
    assert_eq!(unlocked.open(b"log 3", &last).unwrap(), b"third");
    Keyring::remove(dir).unwrap();
    Keyring::remove(dir).unwrap();
    assert!(Keyring::find(dir).unwrap().is_none());
}

#[test]
fn a_sealed_file_shows_no_key_and_nobody_else_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let ring = Keyring::create(dir.path()).unwrap();
    ring.lock_by(Some(UnlockKey::random())).unwrap();
    let path = dir.path().join(FILE);
    let bytes = fs::read(&path).unwrap();
    for key in &ring.current.load().keys {
        assert!(!bytes.windows(KEY).any(|window| window == key));
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn every_truncation_and_every_flipped_bit_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let ring = Keyring::create(dir.path()).unwrap();
    let path = dir.path().join(FILE);
    let key = UnlockKey::random();
    for lock in [None, Some(key.clone())] {
        ring.lock_by(lock).unwrap();
        let whole = fs::read(&path).unwrap();
        let usable = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            match Keyring::find(dir.path()) {
                Err(error) => assert!(error.to_string().contains("manager.keys"), "{error}"),
                Ok(Some(FoundKeyring::Locked(locked))) => drop(locked.unlock(&key).unwrap_err()),
                other => panic!("{other:?}"),
            }
        };
        for len in 0..whole.len() {
            usable(&whole[..len]);
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            usable(&flipped);
        }
        fs::write(&path, &whole).unwrap();
    }
}

proptest! {
    #[test]
    fn seals_hold(plain: Vec<u8>, what: Vec<u8>, noise: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::create(dir.path()).unwrap();
        let sealed = ring.seal(&what, &plain).unwrap();
        prop_assert_eq!(ring.open(&what, &sealed).unwrap(), plain);
        let elsewhere = [what.as_slice(), b"x"].concat();
        prop_assert!(ring.open(&elsewhere, &sealed).is_err());
        let mut forged = sealed.clone();
        let at = at.index(forged.len());
        forged[at] ^= 1 << bit;
        prop_assert!(ring.open(&what, &forged).is_err());
        prop_assert!(ring.open(&what, &noise).is_err());
    }
}
