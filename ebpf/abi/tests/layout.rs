//! Sizes, and the absence of padding: the size of each struct is the sum of its fields'.

use mesh_abi::*;

#[test]
fn no_struct_has_padding() {
    assert_eq!(size_of::<NodeConfig>(), 8 + 7 * 4 + 2 + 2 + 16 + 6 + 2);
    assert_eq!(size_of::<PeerKey>(), 16);
    assert_eq!(size_of::<PeerValue>(), 4);
    assert_eq!(size_of::<HostAddressKey>(), 16);
    assert_eq!(size_of::<NetworkKey>(), 4);
    assert_eq!(size_of::<NetworkValue>(), 16 + 16 + 4 + 4 + 1 + 1 + 1 + 1);
    assert_eq!(size_of::<EndpointKey>(), 4 + 16);
    assert_eq!(size_of::<EndpointValue>(), 16 + 4 + 6 + 2);
    assert_eq!(size_of::<LocalEndpoint>(), 16 + 16 + 6 * 4 + 6 + 2);
    assert_eq!(size_of::<ServiceKey>(), 4 + 16 + 2 + 1 + 1);
    assert_eq!(size_of::<ServiceValue>(), 4 + 4 + 4 + 4 + 2 + 1 + 1);
    assert_eq!(size_of::<BackendValue>(), 16 + 16 + 4 + 4 + 4 + 4 + 2 + 2);
    assert_eq!(size_of::<FlowKey>(), 16 + 16 + 4 + 2 + 2 + 1 + 3);
    assert_eq!(size_of::<ChoiceValue>(), 8 + 4 + 4 + 4 + 1 + 1 + 2);
    assert_eq!(size_of::<ChoiceSlot>(), 8 + size_of::<ChoiceValue>() + size_of::<FlowKey>() + 4);
    assert_eq!(size_of::<ReverseValue>(), 8 + 3 * 16 + 2 + 2 + 4 + 1 + 1 + 2 + 4);
    assert_eq!(size_of::<FragmentKey>(), 16 + 16 + 4 + 4 + 1 + 3);
    assert_eq!(size_of::<FragmentValue>(), 2 + 2);
    assert_eq!(size_of::<AffinityKey>(), 16 + 4);
    assert_eq!(size_of::<AffinityValue>(), 8 + 4 + 4);
    assert_eq!(size_of::<SocketKey>(), 8 + 2 + 6);
    assert_eq!(size_of::<SocketValue>(), 16);
    assert_eq!(size_of::<TrafficValue>(), 8 * 8);
    assert_eq!(size_of::<Watch>(), 8 + 5 * 4 + 16 + 4 + 2 + 1 + 1 + 4);
    assert_eq!(size_of::<EventHead>(), 8 + 4 + 7 * 4 + 2 * 16 + 4 + 2 + 2 + 1 + 1 + 2 + 1 + 3);
    assert_eq!(size_of::<EventCounts>(), 5 * 8);
}

#[test]
fn a_service_has_its_counter_beside_its_seconds() {
    for counter in [0, 1, 255, 256, 0x1234, u16::MAX] {
        for secs in [0, 1, 86_400, ServiceValue::MOST_AFFINITY_SECS] {
            let value = ServiceValue::default().with(secs, counter);
            assert_eq!((value.affinity_secs(), value.counter()), (secs, counter));
        }
    }
    let before = ServiceValue { affinity: 1800, ..ServiceValue::default() };
    assert_eq!(
        (before.affinity_secs(), before.counter()),
        (1800, 0),
        "entries of earlier daemons are not counted"
    );
    assert_eq!(before.with(u32::MAX, 7).affinity_secs(), ServiceValue::MOST_AFFINITY_SECS);
}

#[test]
fn steering_round_trips() {
    for kind in [SteeringKind::Published, SteeringKind::Vip, SteeringKind::Host, SteeringKind::Direct] {
        for turn in [Turn::First, Turn::Second, Turn::Refused, Turn::RefusedAgain] {
            let first = Steering { turn, ..Steering::to(0xdead_beef, 0x1234, kind) };
            let ports = [[0; 2], [0, 80], [0x1f, 0x90], [80, 0]];
            let vnis = [[0; 4], [0, 0, 0x10, 0], [0, 0xff, 0xff, 0xff], [0, 0xa5, 0x5a, 1]];
            let all = match kind {
                SteeringKind::Vip => vnis.map(|vni| Steering { vni, ..first }),
                _ => ports.map(|target_port| Steering { target_port, ..first }),
            };
            for steering in all {
                let macs = steering.encode();
                assert_eq!(Steering::decode(&macs), Some(steering));
                assert_eq!([macs[0] & 3, macs[6] & 3], [2, 2], "locally administered unicast");
            }
        }
    }
    assert_eq!(Steering::decode(&[0; 12]), None);
    assert_eq!(Steering::decode(&[0xff; 12]), None);
}

#[test]
fn every_reason_has_its_own_name_and_index() {
    let names: std::collections::BTreeSet<_> = DropReason::ALL.iter().map(|r| r.as_str()).collect();
    assert_eq!(names.len(), DropReason::COUNT as usize);
    for (index, reason) in DropReason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, index);
    }
}

#[test]
fn families_are_told_apart() {
    assert!(is_v4(&v4_mapped([10, 0, 0, 1])) && is_v4(&ANY_V4));
    assert!(!is_v4(&ANY_V6) && !is_v4(&HOST_SERVICE_ADDRESS6) && !is_v4(&EGRESS_POOL6.0));
}

#[test]
fn an_index_gives_up_what_is_missed_least() {
    let mask = 1023;
    // Heads may wrap.
    for base in [5000, u32::MAX >> 1, u32::MAX - 3] {
        let heads = (base, 70_000);
        let entry = |answered, number| Place::new(answered, number).entry(0x1234_5678);
        let spare = |entry| Place::spare(entry, heads, mask);
        let young = spare(entry(false, base.wrapping_sub(1)));
        let old = spare(entry(false, base.wrapping_sub(1000)));
        let gone = spare(entry(false, base.wrapping_sub(1200)));
        let answered = spare(entry(true, 70_000 - 1000));
        let gone_too = spare(entry(true, 60_000));
        assert!(answered < young && young < old && old < gone && gone < spare(0), "{base}");
        assert!(spare(0) < u32::MAX, "the flow's own entry goes before any");
        assert_eq!(gone, gone_too);
        // Another CPU was faster.
        assert!(spare(entry(false, base.wrapping_add(40))) < young);
    }
}

#[test]
fn a_place_is_found_by_its_hash_alone() {
    for answered in [false, true] {
        let place = Place::new(answered, 2049);
        let entry = place.entry(77);
        assert_eq!((Place::of(entry, 77), Place::of(entry, 78)), (Some(place), None));
        assert_eq!(place.index(1023), if answered { 1025 } else { 1 });
    }
    assert_eq!(Place::of(0, 0), None, "nothing there");
    assert_eq!(set_of(u32::MAX, 1023), 255);
}
