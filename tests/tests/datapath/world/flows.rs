//! The flows that a node's maps hold.

use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapData},
};
use mesh_abi::{ChoiceValue, FlowKey, ReverseValue};

use super::Node;

impl Node {
    /// Lets every flow that is not kept yet seem to have been silent for two seconds.
    pub fn flows_rest(&self) {
        let mut ebpf = self.ebpf.borrow_mut();
        fn older<V: Pod>(map: &mut aya::maps::Map, last_seen: impl Fn(&mut V) -> &mut u64) {
            let mut map: HashMap<&mut MapData, FlowKey, V> = HashMap::try_from(map).unwrap();
            let all: Vec<(FlowKey, V)> = map.iter().map(|entry| entry.unwrap()).collect();
            for (key, mut value) in all {
                *last_seen(&mut value) -= 2_000_000_000;
                map.insert(key, value, 0).unwrap();
            }
        }
        older::<ReverseValue>(ebpf.map_mut("REVERSE").unwrap(), |value| &mut value.last_seen);
        let choices = choices(&ebpf);
        let mut all = Vec::new();
        choices.for_each(|key, value| all.push((key, value)));
        for (key, mut value) in all {
            value.last_seen -= 2_000_000_000;
            choices.remove(&key);
            assert!(choices.add(&key, &value));
        }
    }

    /// The choice for a flow that is not kept.
    pub fn choice(&self, key: &FlowKey) -> Option<ChoiceValue> {
        choices(&self.ebpf.borrow()).get(key)
    }

    /// How many choices are not kept.
    pub fn choices(&self) -> usize {
        let mut count = 0;
        choices(&self.ebpf.borrow()).for_each(|_, _| count += 1);
        count
    }

    /// Forgets the choices of all flows that are not kept.
    pub fn clear_flows(&self) {
        let choices = choices(&self.ebpf.borrow());
        let mut keys = Vec::new();
        choices.for_each(|key, _| keys.push(key));
        keys.iter().for_each(|key| choices.remove(key));
    }

    /// How many flows a map holds.
    pub fn count<K: Pod, V: Pod>(&self, map: &str) -> usize {
        let ebpf = self.ebpf.borrow();
        let map: HashMap<&MapData, K, V> = HashMap::try_from(ebpf.map(map).unwrap()).unwrap();
        map.keys().filter(|key| key.is_ok()).count()
    }
}

/// The choices that are not kept.
fn choices(ebpf: &Ebpf) -> mesh_lb::Choices {
    let map = |name| match ebpf.map(name) {
        Some(aya::maps::Map::Array(data)) => data,
        _ => panic!("no array {name}"),
    };
    mesh_lb::Choices::new(map("CHOICES"), map("CHOICE_INDEX"), map("CHOICE_HEADS")).unwrap()
}
