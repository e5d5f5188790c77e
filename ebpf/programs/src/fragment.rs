//! Fragments follow their flow: the first one of a packet leaves its ports behind, which the others lack.

use aya_ebpf::bindings::BPF_ANY;
use mesh_abi::{DropReason, FragmentKey, FragmentValue};

use crate::{family::Family, maps::FRAGMENTS, parse::Packet, verdict};

/// Notes a first fragment's ports; gives a later one those, or leaves it the orphan that it is.
#[inline(always)]
pub fn follow<F: Family>(packet: &mut Packet<F>, scope: [u8; 4]) {
    if packet.fragment {
        let _ = followed(packet, u32::from_ne_bytes(scope));
    }
}

/// The same where a fragment cannot do without.
#[inline(always)]
pub fn require<F: Family>(packet: &mut Packet<F>, scope: [u8; 4]) -> Result<(), DropReason> {
    if packet.fragment { verdict::ok(followed(packet, u32::from_ne_bytes(scope))) } else { Ok(()) }
}

#[inline(never)]
fn followed<F: Family>(packet: &mut Packet<F>, scope: u32) -> u64 {
    let key = FragmentKey {
        source: F::mapped(&packet.tuple.source),
        destination: F::mapped(&packet.tuple.destination),
        scope: scope.to_ne_bytes(),
        id: packet.id,
        // IPv6's identification is one for all protocols (RFC 8200, section 4.5).
        protocol: if F::V6 { 0 } else { packet.protocol },
        reserved: [0; 3],
    };
    if !packet.later_fragment {
        let value = FragmentValue {
            source_port: packet.tuple.source_port,
            destination_port: packet.tuple.destination_port,
        };
        // Without the entry the later ones are dropped, and the sender sends again.
        let _ = FRAGMENTS.insert(key, value, u64::from(BPF_ANY));
        return verdict::code(Ok(()));
    }
    // SAFETY: an entry that is evicted meanwhile gives one fragment another's ports, and a checksum tells.
    let Some(ports) = (unsafe { FRAGMENTS.get(key) }) else {
        return verdict::code(Err(DropReason::Fragment));
    };
    packet.tuple.source_port = ports.source_port;
    packet.tuple.destination_port = ports.destination_port;
    packet.orphan = false;
    verdict::code(Ok(()))
}
