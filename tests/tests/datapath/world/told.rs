//! What the programs count, and what they tell.

use std::collections::BTreeMap;

use aya::maps::{Array, PerCpuArray, RingBuf};
use mesh_abi::{Counter, DropReason, EventCounts, EventHead, ServiceKey, TrafficValue, Watch};

use super::{Node, Task, counter_of, nanoseconds};

impl Node {
    /// The packets counted as dropped so far, without the reasons that never came up.
    pub fn drops(&self) -> BTreeMap<DropReason, u64> {
        let all = DropReason::ALL.iter().map(|reason| (*reason, self.slot("DROPS", *reason as u32)));
        all.filter(|(_, count)| *count != 0).collect()
    }

    pub fn counted(&self, counter: Counter) -> u64 {
        self.slot("COUNTERS", counter as u32)
    }

    /// What was counted of a task of this node.
    pub fn traffic_of(&self, task: Task) -> TrafficValue {
        self.traffic("ENDPOINT_TRAFFIC", task.id)
    }

    /// What was counted of a service.
    pub fn traffic_to(&self, key: &ServiceKey) -> TrafficValue {
        self.traffic("SERVICE_TRAFFIC", counter_of(key).into())
    }

    fn traffic(&self, map: &str, index: u32) -> TrafficValue {
        let ebpf = self.ebpf.borrow();
        let map: PerCpuArray<_, TrafficValue> = PerCpuArray::try_from(ebpf.map(map).unwrap()).unwrap();
        let all = map.get(&index, 0).unwrap();
        let sum = |of: fn(&TrafficValue) -> u64| all.iter().map(of).sum();
        TrafficValue {
            packets_in: sum(|t| t.packets_in),
            bytes_in: sum(|t| t.bytes_in),
            packets_out: sum(|t| t.packets_out),
            bytes_out: sum(|t| t.bytes_out),
            new_flows: sum(|t| t.new_flows),
            drops_in: sum(|t| t.drops_in),
            drops_out: sum(|t| t.drops_out),
            reserved: sum(|t| t.reserved),
        }
    }

    /// Lets the programs tell of this from now on, for a minute.
    pub fn watch(&self, watch: Watch) {
        self.set_watch(Watch { until: nanoseconds() + 60_000_000_000, ..watch });
    }

    pub fn set_watch(&self, watch: Watch) {
        let mut ebpf = self.ebpf.borrow_mut();
        let mut map: Array<_, Watch> = Array::try_from(ebpf.map_mut("WATCH").unwrap()).unwrap();
        map.set(0, watch, 0).unwrap();
    }

    /// What was told since the last call, with the bytes of packets.
    pub fn told(&self) -> Vec<(EventHead, Vec<u8>)> {
        let mut ebpf = self.ebpf.borrow_mut();
        let mut ring = RingBuf::try_from(ebpf.map_mut("EVENTS").unwrap()).unwrap();
        let mut all = Vec::new();
        while let Some(record) = ring.next() {
            let (head, bytes) = record.split_at(size_of::<EventHead>());
            // SAFETY: plain integers, as many bytes.
            let head: EventHead = unsafe { head.as_ptr().cast::<EventHead>().read_unaligned() };
            all.push((head, bytes.to_vec()));
        }
        all
    }

    /// Events told, those that were too many, those that were lost.
    pub fn event_counts(&self) -> (u64, u64, u64) {
        let ebpf = self.ebpf.borrow();
        let map: PerCpuArray<_, EventCounts> =
            PerCpuArray::try_from(ebpf.map("EVENT_COUNTS").unwrap()).unwrap();
        let all = map.get(&0, 0).unwrap();
        let sum = |of: fn(&EventCounts) -> u64| all.iter().map(of).sum();
        (sum(|c| c.told), sum(|c| c.limited), sum(|c| c.lost))
    }

    fn slot(&self, map: &str, index: u32) -> u64 {
        let ebpf = self.ebpf.borrow();
        let map: PerCpuArray<_, u64> = PerCpuArray::try_from(ebpf.map(map).unwrap()).unwrap();
        map.get(&index, 0).unwrap().iter().sum()
    }
}
