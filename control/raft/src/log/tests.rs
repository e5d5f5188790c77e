use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;

use super::*;
use crate::{disk, machine::Machine, types::RaftId};

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (database, loaded) = disk::open(dir.path(), RaftId::from(1).0, &Default::default()).unwrap();
        let writer = Writer::start(database, disk::path(dir.path()), Default::default()).unwrap();
        let (machine, _) = Machine::new(loaded.snapshot, writer.clone()).unwrap();
        let log = LogStore::new(loaded.log, loaded.vote, loaded.committed, loaded.purged, writer);
        Ok((dir, log, machine))
    }
}

#[tokio::test]
async fn openrafts_own_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}
