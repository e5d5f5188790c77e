use super::*;

impl Format for Vec<u32> {}

#[test]
fn round_trips_and_tells_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks");
    assert!(load::<Vec<u32>>(&path).unwrap().is_none());
    save(&path, &vec![1u32, 2, 3], Durability::Disk).unwrap();
    assert_eq!(load::<Vec<u32>>(&path).unwrap(), Some(vec![1, 2, 3]));

    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let error = load::<Vec<u32>>(&path).unwrap_err();
        assert!(error.to_string().contains("tasks"), "{error}");
    }
    for flip in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[flip] ^= 0x40;
        fs::write(&path, &bytes).unwrap();
        assert!(load::<Vec<u32>>(&path).is_err(), "byte {flip}");
    }
    let mut newer = whole;
    newer[MAGIC.len()] = VERSION + 1;
    fs::write(&path, &newer).unwrap();
    let found = VERSION + 1;
    assert!(matches!(load::<Vec<u32>>(&path), Err(KeptError::Newer { found: f, .. }) if f == found));
    newer[MAGIC.len()] = VERSION - 1;
    fs::write(&path, &newer).unwrap();
    assert_eq!(load::<Vec<u32>>(&path).unwrap(), Some(vec![1, 2, 3]), "the version before");
    newer[MAGIC.len()] = VERSION - 2;
    fs::write(&path, &newer).unwrap();
    let error = load::<Vec<u32>>(&path).unwrap_err();
    assert!(matches!(error, KeptError::Older { .. }) && error.to_string().contains("move the file away"));
}

#[test]
fn what_is_saved_soon_is_there_at_once_and_outlives_the_disks_delay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("view");
    let load = || load::<Vec<u32>>(&path).unwrap();
    save(&path, &vec![1u32], Durability::Soon).unwrap();
    assert_eq!(load(), Some(vec![1]));
    settle(&path).unwrap();
    assert_eq!(load(), Some(vec![1]));
    assert!(path.exists() && !path.with_extension(SOON).exists(), "settled");

    // The power goes before the disk has the next one.
    save(&path, &vec![2u32], Durability::Soon).unwrap();
    assert_eq!(load(), Some(vec![2]));
    for left in [&b""[..], b"meshd/k"] {
        fs::write(path.with_extension(SOON), left).unwrap();
        assert_eq!(load(), Some(vec![1]), "the one before");
    }
    save(&path, &vec![3u32], Durability::Soon).unwrap();
    settle(&path).unwrap();
    settle(&path).unwrap();
    assert_eq!(load(), Some(vec![3]));

    save(&path, &vec![4u32], Durability::Soon).unwrap();
    remove(&path).unwrap();
    remove(&path).unwrap();
    settle(&path).unwrap();
    assert_eq!(load(), None);
}

#[test]
fn of_many_that_save_and_settle_the_last_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("view");
    std::thread::scope(|scope| {
        scope.spawn(|| (0..200).for_each(|_| settle(&path).unwrap()));
        for n in 1..=200u32 {
            save(&path, &vec![n], Durability::Soon).unwrap();
            assert_eq!(load::<Vec<u32>>(&path).unwrap(), Some(vec![n]));
        }
    });
    settle(&path).unwrap();
    assert_eq!(load_at::<Vec<u32>>(&path).unwrap(), Some(vec![200]));
}
