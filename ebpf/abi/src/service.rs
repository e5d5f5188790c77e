//! Virtual addresses, published ports, and the endpoints behind them.

use crate::Address;

/// Key of `SERVICES`: a VIP on a network (`port` and `protocol` 0: every port), or a published port (`vni`
/// [`crate::PUBLISHED`], `address` [`crate::ANY_V4`] or [`crate::ANY_V6`] for every address of the node).
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The network of a VIP, or zero.
    pub vni: [u8; 4],
    /// The VIP, or the node's address.
    pub address: Address,
    /// The published port, network order, or zero.
    pub port: [u8; 2],
    /// IP protocol number, or zero.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
}

/// Bits of [`ServiceValue::flags`].
pub mod service_flags {
    /// All flows of one client address go to the same backend.
    pub const AFFINITY: u8 = 1;
    /// Replies leave by the task's own node.
    pub const DIRECT: u8 = 2;
}

/// Backend ids in one element of the `MAGLEV` array: user space writes so many with one operation.
pub const TABLE_BLOCK: u32 = 64;
/// Element of the `MAGLEV` array. Slot `n` of all tables together is at place `n % TABLE_BLOCK` of element
/// `n / TABLE_BLOCK`.
pub type TableBlock = [u32; TABLE_BLOCK as usize];

/// Value of `SERVICES`: a region of the tables' slots, which hold backend ids.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceValue {
    /// The region's first slot in `MAGLEV`.
    pub table_base: u32,
    /// Length of the region, a prime; 0 when the service has no endpoint.
    pub table_len: u32,
    /// The service's number, the same for all its addresses and ports.
    pub number: u32,
    /// The last three bytes, with [`service_flags::AFFINITY`]: see [`ServiceValue::affinity_secs`]; the first one: see
    /// [`ServiceValue::counter`].
    pub affinity: u32,
    /// Port that the tasks listen on, network order; zero leaves the port as it is.
    pub target_port: [u8; 2],
    /// Bits of [`service_flags`].
    pub flags: u8,
    /// See [`ServiceValue::counter`].
    pub counter: u8,
}

impl ServiceValue {
    /// Longest time that [`ServiceValue::affinity_secs`] may be, half a year.
    pub const MOST_AFFINITY_SECS: u32 = 0xff_ffff;

    /// With [`service_flags::AFFINITY`]: seconds for which a client's backend is remembered; 0: only the hash decides.
    #[inline(always)]
    pub const fn affinity_secs(&self) -> u32 {
        self.affinity & Self::MOST_AFFINITY_SECS
    }

    /// Index into `SERVICE_TRAFFIC`; 0 when it is not counted. Its upper byte is where seconds never were, so that programs
    /// and entries of before it was there go together with those of now.
    #[inline(always)]
    pub const fn counter(&self) -> u16 {
        (self.affinity >> 24 << 8) as u16 | self.counter as u16
    }

    /// The same entry with these seconds (at most [`ServiceValue::MOST_AFFINITY_SECS`]) and this index.
    pub const fn with(self, affinity_secs: u32, counter: u16) -> Self {
        let secs =
            if affinity_secs > Self::MOST_AFFINITY_SECS { Self::MOST_AFFINITY_SECS } else { affinity_secs };
        let [low, high] = counter.to_le_bytes();
        Self { affinity: secs | (high as u32) << 24, counter: low, ..self }
    }
}

/// Bits of [`BackendValue::flags`].
pub mod backend_flags {
    /// Keeps established flows; in no Maglev table any more.
    pub const DRAINING: u32 = 1;
}

/// Value of `BACKENDS` (key: backend id, `u32`, given by user space and never reused while a flow may name it).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendValue {
    /// VTEP address of the endpoint's node; the node's own for local endpoints.
    pub vtep: Address,
    /// The endpoint's address.
    pub address: Address,
    /// The endpoint's network.
    pub vni: [u8; 4],
    /// The endpoint's id on its node.
    pub endpoint: u32,
    /// Host-side interface when the endpoint is local; 0 otherwise.
    pub ifindex: u32,
    /// Bits of [`backend_flags`].
    pub flags: u32,
    /// Which use of `endpoint` this is.
    pub generation: u16,
    /// Zero.
    pub reserved: [u8; 2],
}
