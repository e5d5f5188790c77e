use mesh_types::{EndpointState, Generation, Health, LocalEndpointId, Mac};

use super::*;

const TABLE: NetworkId = NetworkId::from_u128(1);

fn endpoint(task: u128, node: u128) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        network: TABLE,
        node: NodeId::from_u128(node),
        task: TaskId::from_u128(task),
        name: format!("task{task}").parse().unwrap(),
        service: None,
        addresses: vec![[10, 10, 3, (task % 250) as u8].into()],
        mac: Mac([2, 0, 0, 0, 0, 1]),
        local_id: LocalEndpointId(1),
        generation: Generation(1),
        aliases: Vec::new(),
        state: EndpointState::Ready,
        weight: 1,
        health: Health::None,
        health_note: None,
    })
}

fn there(endpoint: &Arc<Endpoint>) -> Heard {
    ((TABLE, (&**endpoint).into()), Some(endpoint.clone()))
}

fn gone(endpoint: &Arc<Endpoint>) -> Heard {
    ((TABLE, (&**endpoint).into()), None)
}

/// A log, what it should tell, and where it is.
struct World {
    folder: tempfile::TempDir,
    log: HeardLog,
    all: BTreeMap<Told, Arc<Endpoint>>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = HeardLog::new(folder.path().join("heard"), folder.path().join("endpoints"));
        Self { folder, log, all: BTreeMap::new() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("heard")
    }

    fn note(&mut self, changes: &[Heard]) {
        for (told, endpoint) in changes {
            match endpoint {
                Some(endpoint) => self.all.insert(*told, endpoint.clone()),
                None => self.all.remove(told),
            };
        }
        let all = &self.all;
        self.log.note(changes, || all.iter().map(|(told, e)| (*told, Some(e.clone()))).collect());
    }

    fn loaded(&self) -> Vec<Arc<Endpoint>> {
        HeardLog::load(&self.path()).unwrap().unwrap_or_default().remove(&TABLE).unwrap_or_default()
    }

    fn size(&self) -> u64 {
        fs::metadata(self.path()).unwrap().len()
    }
}

#[test]
fn all_that_was_noted_is_known_at_once() {
    let mut world = World::new();
    assert!(HeardLog::load(&world.path()).unwrap().is_none());
    let (one, two) = (endpoint(1, 2), endpoint(2, 3));
    world.note(&[there(&one)]);
    assert_eq!(world.loaded(), std::slice::from_ref(&one));
    world.note(&[there(&two)]);
    assert_eq!(world.loaded(), [one.clone(), two.clone()]);
    // It moves to another node.
    let moved = endpoint(1, 4);
    world.note(&[gone(&one), there(&moved)]);
    assert_eq!(world.loaded(), [moved.clone(), two.clone()]);
    world.note(&[gone(&two), gone(&moved)]);
    assert!(world.loaded().is_empty());
}

#[test]
fn the_next_daemon_goes_on_where_this_one_ended() {
    let mut world = World::new();
    let (one, two) = (endpoint(1, 2), endpoint(2, 3));
    world.note(&[there(&one)]);
    let path = world.path();
    world.log = HeardLog::new(path.clone(), world.folder.path().join("endpoints"));
    assert_eq!(world.loaded(), std::slice::from_ref(&one), "as long as nothing changes");
    world.note(&[there(&two)]);
    assert_eq!(world.loaded(), [one, two]);
}

#[test]
fn a_file_of_an_earlier_version_goes_with_the_first_change() {
    let mut world = World::new();
    let before = world.folder.path().join("endpoints");
    fs::write(&before, "").unwrap();
    world.note(&[there(&endpoint(1, 2))]);
    assert!(!before.exists());
}

#[test]
fn what_was_cut_off_is_left_out() {
    let mut world = World::new();
    let all: Vec<_> = (1..4).map(|n| endpoint(n, 2)).collect();
    let mut ends = Vec::new();
    for one in &all {
        world.note(&[there(one)]);
        ends.push(world.size());
    }
    let whole = fs::read(world.path()).unwrap();
    for cut in kept::header().len()..whole.len() {
        fs::write(world.path(), &whole[..cut]).unwrap();
        let known = ends.iter().filter(|end| **end <= cut as u64).count();
        assert_eq!(world.loaded(), all[..known], "cut at {cut}");
    }
    for flip in kept::header().len()..whole.len() {
        let mut bytes = whole.clone();
        bytes[flip] ^= 0x40;
        fs::write(world.path(), &bytes).unwrap();
        let known = ends.iter().filter(|end| **end <= flip as u64).count();
        assert_eq!(world.loaded(), all[..known], "byte {flip}");
    }
}

#[test]
fn another_file_is_an_error_that_names_it() {
    let world = World::new();
    for (bytes, word) in
        [(&b"meshd"[..], "cut short"), (b"somebody else's", "begin"), (b"meshd/k\xff", "newer")]
    {
        fs::write(world.path(), bytes).unwrap();
        let error = HeardLog::load(&world.path()).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("heard"), "{error}");
    }
}

#[test]
fn a_long_log_is_written_anew() {
    let mut world = World::new();
    let stays = endpoint(1, 2);
    world.note(&[there(&stays)]);
    let (once, changes) = (world.size(), endpoint(2, 2));
    for _ in 0..4000 {
        world.note(&[there(&changes)]);
        world.note(&[gone(&changes)]);
        assert!(world.size() < 2 * SLACK, "{}", world.size());
    }
    assert!(8000 * (LENGTH + DIGEST) as u64 > SLACK && once < SLACK, "it was");
    assert_eq!(world.loaded(), [stays]);
}

#[test]
fn many_are_kept_in_records_of_bounded_length() {
    let mut world = World::new();
    let all: Vec<_> = (1..=3 * CHANGES as u128 + 1).map(|n| endpoint(n, 2)).collect();
    world.note(&all.iter().map(there).collect::<Vec<_>>());
    assert_eq!(world.loaded(), all);
}

#[test]
fn what_could_not_be_written_is_written_with_the_next() {
    let mut world = World::new();
    let (one, two) = (endpoint(1, 2), endpoint(2, 2));
    let beside = world.path().with_extension("new");
    fs::create_dir(&beside).unwrap();
    world.note(&[there(&one)]);
    assert!(HeardLog::load(&world.path()).unwrap().is_none());
    fs::remove_dir(&beside).unwrap();
    world.note(&[]);
    assert_eq!(world.loaded(), std::slice::from_ref(&one), "also when nothing changes");
    world.note(&[there(&two)]);
    assert_eq!(world.loaded(), [one, two]);
}
