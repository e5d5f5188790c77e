use std::io::Write as _;

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
    let (_, loaded) = open(dir.path(), id(1)).unwrap();
    (dir, loaded)
}

fn error(dir: &Path) -> OpenError {
    let error = open(dir, id(1)).map(|_| ()).unwrap_err();
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
        match open(dir.path(), id(1)) {
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
    let (database, _) = open(dir.path(), id(1)).unwrap();
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
    let foreign = open(dir.path(), id(2)).map(|_| ()).unwrap_err();
    assert!(matches!(foreign, OpenError::WrongNode { found, .. } if found == id(1)), "{foreign:?}");
    let held = open(dir.path(), id(1)).unwrap();
    assert!(matches!(error(dir.path()), OpenError::InUse { .. }));
    drop(held);
    open(dir.path(), id(1)).unwrap();
    let nowhere = open(&dir.path().join("nowhere"), id(1)).map(|_| ()).unwrap_err();
    assert!(matches!(nowhere, OpenError::Io { .. }), "{nowhere:?}");
}

#[test]
fn half_a_fresh_file_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    fs::File::create(dir.path().join("raft.redb.new")).unwrap().write_all(b"half").unwrap();
    open(dir.path(), id(1)).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
