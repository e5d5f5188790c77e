use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Keys around a few places, so that chunks fill, split, thin out and join.
fn edits() -> impl Strategy<Value = Vec<(u16, Option<u8>)>> {
    let key = prop_oneof![0u16..400, 0u16..2000];
    proptest::collection::vec((key, proptest::option::weighted(0.6, any::<u8>())), 0..1500)
}

fn edit(map: &mut SharedMap<u16, u8>, model: &mut BTreeMap<u16, u8>, edits: &[(u16, Option<u8>)]) {
    for (key, value) in edits {
        match value {
            Some(value) => assert_eq!(map.insert(*key, *value), model.insert(*key, *value)),
            None => assert_eq!(map.remove(key), model.remove(key)),
        }
    }
}

proptest! {
    #[test]
    fn is_a_map(edits in edits()) {
        let (mut map, mut model) = (SharedMap::default(), BTreeMap::new());
        edit(&mut map, &mut model, &edits);
        prop_assert!(map.iter().eq(model.iter()));
        prop_assert_eq!(map.len(), model.len());
        prop_assert!((0..2000).all(|key| map.get(&key) == model.get(&key)));
        prop_assert!(map.chunks.iter().all(|chunk| (1..=CHUNK).contains(&chunk.len())));
        for from in (0..2000).step_by(37) {
            let to = from + 300;
            prop_assert_eq!(map.count_in(&from..=&to), model.range(from..=to).count());
        }
        let text = serde_json::to_string(&map).unwrap();
        prop_assert_eq!(&text, &serde_json::to_string(&model).unwrap());
        prop_assert_eq!(&serde_json::from_str::<SharedMap<u16, u8>>(&text).unwrap(), &map);
        let anew: SharedMap<_, _> = model.into_iter().collect();
        prop_assert_eq!(anew, map);
    }

    #[test]
    fn changes_are_the_difference(first in edits(), second in edits()) {
        let (mut map, mut model) = (SharedMap::default(), BTreeMap::new());
        edit(&mut map, &mut model, &first);
        let (old, old_model) = (map.clone(), model.clone());
        edit(&mut map, &mut model, &second[..second.len() / 20]);
        let keys = old_model.keys().chain(model.keys()).collect::<std::collections::BTreeSet<_>>();
        let expected: Vec<_> = keys
            .into_iter()
            .map(|key| (key, old_model.get(key), model.get(key)))
            .filter(|(_, before, after)| before != after)
            .collect();
        prop_assert_eq!(old.changes(&map).collect::<Vec<_>>(), &expected[..]);
        prop_assert_eq!(old == map, expected.is_empty());
        prop_assert!(old.iter().eq(old_model.iter()), "a copy stays as it was");
    }
}

#[test]
fn one_change_among_many_leaves_the_other_chunks_shared() {
    let old: SharedMap<u32, u32> = (0..100_000).map(|n| (n, n)).collect();
    let mut new = old.clone();
    new.insert(50_000, 0);
    assert!(old != new);
    assert_eq!(old.changes(&new).collect::<Vec<_>>(), [(&50_000, Some(&50_000), Some(&0))]);
    let differing = old.chunks.iter().zip(new.chunks.iter()).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
    assert_eq!(differing, 1);
}

#[test]
fn removing_most_entries_leaves_few_chunks() {
    let mut map: SharedMap<u32, ()> = (0..10_000).map(|n| (n, ())).collect();
    assert!((0..10_000).filter(|n| n % 50 != 0).all(|n| map.remove(&n).is_some()));
    assert_eq!(map.len(), 200);
    assert!(map.chunks.len() <= 200 / SPARSE * 2, "{} chunks", map.chunks.len());
}
