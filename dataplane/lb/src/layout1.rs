//! What the maps of layout 1 held, as far as it is carried over. `BackendValue` and the keys are as they still are.

use mesh_abi::{
    Address, ChoiceValue, FlowKey, HOST_SERVICE_ADDRESS, PUBLISHED, ReverseValue, flow_state, v4_mapped,
};

/// Value of `CHOICES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) last_seen: u64,
    pub(crate) backend: u32,
    pub(crate) client: u32,
}

/// Value of `REVERSE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reverse {
    pub(crate) last_seen: u64,
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) vtep: Address,
    pub(crate) source_port: [u8; 2],
    pub(crate) destination_port: [u8; 2],
    pub(crate) path: u8,
    pub(crate) reserved: [u8; 3],
}

// SAFETY: repr(C), Copy, 'static, only integers and byte arrays, and no padding (the test below).
unsafe impl aya::Pod for Choice {}
// SAFETY: as above.
unsafe impl aya::Pod for Reverse {}

/// Layout 1 did not note what had been seen of a flow; one that has been carried at all is taken as established.
const ESTABLISHED: u8 = flow_state::ANSWERED | flow_state::CONFIRMED;

impl Choice {
    /// As it is now. `uplink`: the only interface by which clients came then.
    pub(crate) fn now(&self, key: &FlowKey, uplink: u32) -> ChoiceValue {
        let from_host = key.destination == v4_mapped(HOST_SERVICE_ADDRESS);
        let from_uplink = key.scope == PUBLISHED && self.client == 0 && !from_host;
        ChoiceValue {
            last_seen: self.last_seen,
            backend: self.backend,
            client: self.client,
            ifindex: if from_uplink { uplink } else { 0 },
            state: ESTABLISHED,
            ..ChoiceValue::default()
        }
    }
}

impl Reverse {
    /// As it is now.
    pub(crate) fn now(&self) -> ReverseValue {
        ReverseValue {
            last_seen: self.last_seen,
            source: self.source,
            destination: self.destination,
            vtep: self.vtep,
            source_port: self.source_port,
            destination_port: self.destination_port,
            path: self.path,
            state: ESTABLISHED,
            ..ReverseValue::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_padding() {
        assert_eq!(size_of::<Choice>(), 8 + 4 + 4);
        assert_eq!(size_of::<Reverse>(), 8 + 3 * 16 + 2 + 2 + 1 + 3);
    }

    #[test]
    fn a_choice_remembers_the_way_its_client_came() {
        let choice = Choice { last_seen: 5, backend: 7, client: 0 };
        let published = FlowKey { scope: PUBLISHED, ..FlowKey::default() };
        let host = FlowKey { destination: v4_mapped(HOST_SERVICE_ADDRESS), ..published };
        let vip = FlowKey { scope: [0, 0, 16, 0], ..FlowKey::default() };
        let ways = [published, host, vip].map(|key| choice.now(&key, 3).ifindex);
        assert_eq!(ways, [3, 0, 0]);
        let task = Choice { client: 9, ..choice }.now(&published, 3);
        assert_eq!((task.ifindex, task.client, task.backend, task.last_seen), (0, 9, 7, 5));
    }
}
