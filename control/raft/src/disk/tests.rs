use std::{io::Write as _, sync::Arc};

use tempfile::TempDir;

use super::*;
use crate::testing::{alone, frozen, id, label};

/// A file with some history, closed in order; and what it holds.
async fn written() -> (TempDir, Loaded) {
    let (dir, _, node) = alone(frozen()).await;
    for number in 0..20 {
        node.propose(label(number)).await.unwrap();
    }
    node.raft().trigger().snapshot().await.unwrap();
    let waiting = node.raft().wait(Some(crate::testing::LONG));
    waiting.metrics(|m| m.snapshot.is_some(), "a snapshot").await.unwrap();
    node.shutdown().await;
    let (_, loaded) = open(dir.path(), id(1), &Vault::default()).unwrap();
    (dir, loaded)
}

fn error(dir: &Path) -> OpenError {
    let error = open(dir, id(1), &Vault::default()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("raft.redb"), "{error}");
    error
}

#[tokio::test]
async fn every_truncation_is_an_error() {
    let (dir, _) = written().await;
    let whole = fs::read(path(dir.path())).unwrap();
    let mut lengths = vec![0, 1, 9, 63, 64, 100, 319, 320, 511, 512, 4095, 4096, 4097, whole.len() - 1];
    lengths.extend((1..40).map(|part| whole.len() * part / 40));
    for length in lengths {
        fs::write(path(dir.path()), &whole[..length]).unwrap();
        let error = error(dir.path());
        assert!(matches!(error, OpenError::Damaged { .. }), "{length}: {error:?}");
        assert_eq!(fs::metadata(path(dir.path())).unwrap().len(), length as u64, "left as it was");
    }
}

#[tokio::test]
async fn a_changed_byte_is_an_error_or_does_no_harm() {
    let (dir, good) = written().await;
    let whole = fs::read(path(dir.path())).unwrap();
    let mut damaged = 0;
    for at in (0..whole.len()).step_by(whole.len() / 400) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(path(dir.path()), &bytes).unwrap();
        match open(dir.path(), id(1), &Vault::default()) {
            // Much of the file is unused.
            Ok((_, loaded)) => assert_eq!(loaded, good, "byte {at}"),
            Err(error) => {
                damaged += 1;
                assert!(error.to_string().contains("raft.redb"), "{error}");
            }
        }
    }
    assert!(damaged > 0);
}

/// Nothing but the entry's own seal can tell.
#[tokio::test]
async fn a_changed_bit_under_good_checksums_is_an_error() {
    let (dir, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let cipher: Arc<dyn crate::Cipher> = Arc::new(Ring(mesh_ca::Keyring::create(keys.path()).unwrap()));
    let hub = Arc::default();
    let node = crate::testing::start_with(&hub, 1, dir.path(), frozen(), Some(cipher.clone())).await;
    node.initialize().await.unwrap();
    node.propose(crate::testing::init()).await.unwrap();
    node.propose(label(1)).await.unwrap();
    node.shutdown().await;
    let (changed, _) = last_entry(&path(dir.path())).unwrap().unwrap();
    change_last_entry(&path(dir.path())).unwrap();
    let error = open(dir.path(), id(1), &Vault(Some(cipher))).map(|_| ()).unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, OpenError::Damaged { .. }), "{said}");
    assert!(
        said.contains(&format!("log entry {changed} cannot be decrypted")) && said.contains("restore it"),
        "{said}"
    );
}

#[tokio::test]
async fn other_content_is_an_error() {
    let (dir, _) = written().await;
    for content in [&b""[..], b"not a database", &[0; 10_000], &[0xff; 10_000]] {
        fs::write(path(dir.path()), content).unwrap();
        assert!(matches!(error(dir.path()), OpenError::Damaged { .. }));
        assert_eq!(fs::read(path(dir.path())).unwrap(), content, "left as it was");
    }
}

#[tokio::test]
async fn a_later_format_is_named() {
    let (dir, _) = written().await;
    let (database, _) = open(dir.path(), id(1), &Vault::default()).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(META).unwrap().insert(VOTE, &[9u8, 1, 2][..]).unwrap();
    txn.commit().unwrap();
    drop(database);
    let error = error(dir.path());
    assert!(matches!(error, OpenError::Format { .. }), "{error:?}");
    assert!(error.to_string().contains('9'));
}

#[tokio::test]
async fn whose_it_is_and_whether_it_is_in_use_is_told() {
    let (dir, _) = written().await;
    let foreign = open(dir.path(), id(2), &Vault::default()).map(|_| ()).unwrap_err();
    assert!(matches!(foreign, OpenError::WrongNode { found, .. } if found == id(1)), "{foreign:?}");
    let held = open(dir.path(), id(1), &Vault::default()).unwrap();
    assert!(matches!(error(dir.path()), OpenError::InUse { .. }));
    drop(held);
    open(dir.path(), id(1), &Vault::default()).unwrap();
    let nowhere = open(&dir.path().join("nowhere"), id(1), &Vault::default()).map(|_| ()).unwrap_err();
    assert!(matches!(nowhere, OpenError::Io { .. }), "{nowhere:?}");
}

#[test]
fn half_a_fresh_file_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    fs::File::create(dir.path().join("raft.redb.new")).unwrap().write_all(b"half").unwrap();
    open(dir.path(), id(1), &Vault::default()).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A ring of keys as a cipher.
struct Ring(Arc<mesh_ca::Keyring>);

impl crate::Cipher for Ring {
    fn seal(&self, what: &[u8], plain: &[u8]) -> io::Result<Vec<u8>> {
        self.0.seal(what, plain).map_err(io::Error::other)
    }
    fn open(&self, what: &[u8], sealed: &[u8]) -> io::Result<Vec<u8>> {
        self.0.open(what, sealed).map_err(io::Error::other)
    }
    fn is_current(&self, sealed: &[u8]) -> bool {
        self.0.is_current(sealed)
    }
}

#[tokio::test]
async fn what_is_decided_lies_encrypted_and_follows_the_keys() {
    let (dir, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ring = mesh_ca::Keyring::create(keys.path()).unwrap();
    let cipher: Arc<dyn crate::Cipher> = Arc::new(Ring(ring.clone()));
    let hub = Arc::default();
    let start = || crate::testing::start_with(&hub, 1, dir.path(), frozen(), Some(cipher.clone()));
    let node = start().await;
    node.initialize().await.unwrap();
    node.propose(crate::testing::init()).await.unwrap();
    node.raft().trigger().snapshot().await.unwrap();
    let waiting = node.raft().wait(Some(crate::testing::LONG));
    waiting.metrics(|m| m.snapshot.is_some(), "a snapshot").await.unwrap();
    node.propose(label(1)).await.unwrap();
    let state = node.state();
    node.shutdown().await;

    // The label that `label` sets.
    let shows = |dir: &Path| fs::read(path(dir)).unwrap().windows(6).any(|window| window == b"number");
    let (open_dir, _) = written().await;
    assert!(shows(open_dir.path()) && !shows(dir.path()));
    assert!(open(dir.path(), id(1), &Vault::default()).is_err(), "without the keys");
    let other = mesh_ca::Keyring::create(tempfile::tempdir().unwrap().path()).unwrap();
    let error = open(dir.path(), id(1), &Vault(Some(Arc::new(Ring(other))))).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("cannot be decrypted"), "{error}");

    // A start seals anew what an earlier key has sealed.
    ring.lock_by(Some(mesh_ca::UnlockKey::random())).unwrap();
    let vault = Vault(Some(cipher.clone()));
    drop(open(dir.path(), id(1), &vault).unwrap());
    ring.forget_earlier().unwrap();
    drop(open(dir.path(), id(1), &vault).unwrap());
    let node = start().await;
    assert_eq!(*node.state(), *state);
    node.shutdown().await;
}
