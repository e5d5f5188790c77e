//! What the programs tell while somebody watches: each kind of event, each filter, and nothing else.

use mesh_abi::{
    DropReason, EntryPoint, EventHead, EventKind, GATEWAY_MAC, SNAP, Sight, Watch, flow_state, v4_mapped,
    watch_kinds,
};

use crate::{
    packets::Path,
    world::{
        A, Action, B, C, CLIENT, EMPTY_VIP, Family, HOST_MAC, Node, PORT_2, TARGET, Task, VIP, VNI, egress,
        nanoseconds, port_key, vip_key, vtep,
    },
    xdp,
};

const ALL: Watch = watch(watch_kinds::NEW | watch_kinds::CLOSED | watch_kinds::DROP | watch_kinds::PACKET);
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;

const fn watch(kinds: u32) -> Watch {
    Watch {
        until: 0,
        kinds,
        rate: 1000,
        snaplen: 0,
        endpoint: 0,
        mark: 0,
        address: [0; 16],
        vni: [0; 4],
        port: [0; 2],
        protocol: 0,
        reserved: 0,
        reserved2: 0,
    }
}

fn from(task: Task, to: [u8; 4]) -> Path {
    Path { from_mac: task.mac, to_mac: GATEWAY_MAC, from: task.address, to }
}

/// Somebody outside who speaks to node 1.
fn client() -> Path {
    Path { from_mac: [2, 0, 0, 0, 0xff, 1], to_mac: [2, 0, 0, 0, 0xff, 2], from: CLIENT, to: vtep(1) }
}

/// Kind, place, endpoint.
fn short((head, _): &(EventHead, Vec<u8>)) -> (u8, u8, u32) {
    (head.kind, head.place, head.endpoint)
}

const NEW: u8 = EventKind::New as u8;
const CLOSED: u8 = EventKind::Closed as u8;
const PACKET: u8 = EventKind::Packet as u8;

#[test]
fn nothing_is_told_when_nobody_watches() {
    let (one, two) = Node::pair();
    let exchange = || {
        let (_, outer) = one.task_sends(A, &from(A, VIP).syn(4000, 80));
        two.uplink(&outer);
        one.task_sends(A, &from(A, VIP).segment(4000, 80, RST));
        one.task_sends(A, &from(A, EMPTY_VIP).syn(4000, 80));
    };
    exchange();
    assert!(one.told().is_empty() && two.told().is_empty());
    // Nor when it was forgotten to turn it off. The programs' clock is that of the kernel's ticks.
    one.set_watch(Watch { until: nanoseconds() - 100_000_000, ..ALL });
    exchange();
    assert!(one.told().is_empty());
    assert_eq!(one.event_counts(), (0, 0, 0));
}

#[test]
fn a_flow_is_told_when_it_begins_and_when_it_ends() {
    let (mut one, two) = Node::pair();
    one.service_with(vip_key(VIP), |service| service.number = 77);
    one.watch(watch(watch_kinds::NEW | watch_kinds::CLOSED));
    let before = nanoseconds();
    let (_, outer) = one.task_sends(A, &from(A, VIP).syn(4000, 80));
    two.uplink(&outer);
    let told = one.told();
    assert_eq!(told.iter().map(short).collect::<Vec<_>>(), [(NEW, 0, A.id)]);
    let head = told[0].0;
    assert!(head.time >= before && head.time <= nanoseconds());
    assert_eq!((head.source, head.destination), (v4_mapped(A.address), v4_mapped(VIP)));
    let ports = [head.source_port, head.destination_port].map(u16::from_be_bytes);
    assert_eq!((ports, head.protocol, head.vni), ([4000, 80], 6, VNI));
    assert_eq!((head.backend, head.number), (C.id, 77));

    // Each side closes; what goes on in between is not told.
    let talk = |flags| {
        let (_, outer) = one.task_sends(A, &from(A, VIP).segment(4000, 80, flags));
        two.uplink(&outer);
    };
    let reply = |flags| {
        let path = Path { to_mac: A.mac, ..from(C, A.address) };
        let (_, back) = two.task_sends(C, &path.segment(80, 4000, flags));
        one.uplink(&back);
    };
    reply(0x12);
    talk(0x10);
    talk(FIN_ACK);
    assert!(one.told().is_empty());
    reply(FIN_ACK);
    talk(0x10);
    let told = one.told();
    assert_eq!(told.iter().map(short).collect::<Vec<_>>(), [(CLOSED, 0, A.id)]);
    let state = told[0].0.state;
    assert_eq!(state & (flow_state::CLIENT_FIN | flow_state::SERVER_FIN), 0b1100);
    assert_eq!(told[0].0.backend, C.id);

    // One resets.
    let (_, outer) = one.uplink(&client().syn(5000, PORT_2));
    two.uplink(&outer);
    one.uplink(&client().segment(5000, PORT_2, RST));
    one.uplink(&client().segment(5000, PORT_2, RST));
    let told = one.told();
    assert_eq!(told.iter().map(short).collect::<Vec<_>>(), [(NEW, 0, 0), (CLOSED, 0, 0)]);
    assert_eq!(told[1].0.state & flow_state::RESET, flow_state::RESET);
    assert_eq!((told[0].0.vni, told[0].0.service), ([0; 4], PORT_2 % 1000));
}

#[test]
fn an_established_connection_is_told_when_it_ends() {
    let (one, two) = Node::pair();
    let talk = |flags| {
        let (_, outer) = one.uplink(&client().segment(5000, PORT_2, flags));
        two.uplink(&outer);
    };
    let reply = |flags| {
        let (_, back) = two.task_sends(C, &from(C, CLIENT).segment(TARGET, 5000, flags));
        one.uplink(&back);
    };
    talk(0x02);
    reply(0x12);
    talk(0x10);
    one.flows_rest();
    talk(0x10);
    one.watch(watch(watch_kinds::CLOSED));
    for flags in [FIN_ACK, FIN_ACK] {
        talk(flags);
    }
    assert!(one.told().is_empty());
    for flags in [FIN_ACK, FIN_ACK] {
        reply(flags);
    }
    assert_eq!(one.told().iter().map(short).collect::<Vec<_>>(), [(CLOSED, 0, 0)]);
}

#[test]
fn connections_between_tasks_are_told_when_they_open() {
    let (one, _) = Node::pair();
    one.watch(watch(watch_kinds::NEW));
    let path = Path { to_mac: C.mac, ..from(A, C.address) };
    one.task_sends(A, &path.syn(4000, 80));
    one.task_sends(A, &path.tcp(4000, 80, b"goes on"));
    let told = one.told();
    assert_eq!(told.iter().map(short).collect::<Vec<_>>(), [(NEW, 0, A.id)]);
    assert_eq!((told[0].0.destination, told[0].0.backend), (v4_mapped(C.address), 0));
}

#[test]
fn drops_are_told_with_their_reason_and_the_packet() {
    let (one, _) = Node::pair();
    one.watch(Watch { snaplen: 60, ..watch(watch_kinds::DROP) });
    let forged = Path { from: B.address, ..from(A, C.address) }.udp(1, 2, &[7; 100]);
    assert_eq!(one.task_sends(A, &forged).0, Action::Drop);
    assert_eq!(one.task_sends(A, &from(A, EMPTY_VIP).syn(4000, 80)).0, Action::Drop);
    let stranger = client().udp(9, 4789, &[8, 0, 0, 0, 0, 0, 0x10, 0]);
    assert_eq!(one.uplink(&stranger).0, Action::Drop);
    let told = one.told();
    let reasons: Vec<_> = told.iter().map(|(head, _)| (head.reason, head.program, head.endpoint)).collect();
    let expected = [
        (DropReason::SpoofedSource, EntryPoint::FromTask, A.id),
        (DropReason::NoBackend, EntryPoint::FromTask, A.id),
        (DropReason::UnknownSender, EntryPoint::Uplink, 0),
    ];
    assert_eq!(reasons, expected.map(|(reason, program, id)| (reason as u8 + 1, program as u8, id)));
    let (head, bytes) = &told[0];
    assert_eq!((head.len as usize, head.captured, bytes.as_slice()), (forged.len(), 60, &forged[..60]));
    assert_eq!((head.source, head.destination), (v4_mapped(B.address), v4_mapped(C.address)));
    let whole = &told[1].1;
    assert_eq!(whole.len(), told[1].0.len as usize, "shorter than what is asked for");
}

#[test]
fn packets_are_told_at_each_place() {
    let (one, two) = Node::pair();
    for node in [&one, &two] {
        node.watch(Watch { snaplen: SNAP as u32, ..watch(watch_kinds::PACKET) });
    }
    let ask = from(A, VIP).tcp(4000, 80, b"request");
    let (_, outer) = one.task_sends(A, &ask);
    let told = one.told();
    let places = [(PACKET, Sight::FromTask as u8, A.id), (PACKET, Sight::ToNode as u8, A.id)];
    assert_eq!(told.iter().map(short).collect::<Vec<_>>(), places);
    assert!(told.iter().all(|(head, bytes)| head.len as usize == ask.len() && *bytes == ask));

    let (_, arrived) = two.uplink(&outer);
    let told = two.told();
    let places = [(PACKET, Sight::FromNode as u8, C.id), (PACKET, Sight::ToTask as u8, C.id)];
    assert_eq!(told.iter().map(short).collect::<Vec<_>>(), places);
    assert_eq!(told[0].1[14..], ask[14..], "outer headers off, not translated yet");
    assert_eq!(told[1].1, arrived);
    assert_eq!(told[1].0.program, EntryPoint::Uplink as u8);

    // Out into the world, and back.
    let ask = from(A, [198, 51, 100, 7]).udp(4000, 53, b"ask");
    one.task_sends(A, &ask);
    let reply = Path { from_mac: HOST_MAC, to_mac: A.mac, from: [198, 51, 100, 7], to: egress(A) };
    let (_, home) = one.to_task(A, &reply.udp(53, 4000, b"told"));
    let told = one.told();
    let places = [(PACKET, Sight::FromTask as u8, A.id), (PACKET, Sight::ToTask as u8, A.id)];
    assert_eq!(told.iter().map(short).collect::<Vec<_>>(), places);
    assert_eq!(told[1].1, home);
}

#[test]
fn long_packets_are_told_in_part() {
    let (one, _) = Node::pair();
    one.watch(Watch { snaplen: u32::MAX, ..watch(watch_kinds::PACKET) });
    let large = Path { to_mac: C.mac, ..from(A, C.address) }.tcp(4000, 80, &[7; 2800]);
    one.run("from_task", one.interface_of(A), &large, 1400);
    let told = one.told();
    assert_eq!(told[0].1, large[..SNAP]);
    assert_eq!(told[0].0.len as usize, large.len());
}

#[test]
fn filters_leave_out_the_rest() {
    let (one, _) = Node::pair();
    let told_of = |watch: Watch| {
        one.watch(Watch { endpoint: watch.endpoint, ..watch });
        one.task_sends(A, &Path { to_mac: C.mac, ..from(A, C.address) }.tcp(4000, 80, b"x"));
        one.task_sends(B, &Path { to_mac: C.mac, ..from(B, C.address) }.udp(53, 4001, b"x"));
        one.told()
            .iter()
            .filter(|e| e.0.place == Sight::FromTask as u8)
            .map(|e| e.0.endpoint)
            .collect::<Vec<_>>()
    };
    let packets = watch(watch_kinds::PACKET);
    assert_eq!(told_of(packets), [A.id, B.id]);
    for only_a in [
        Watch { endpoint: A.id, ..packets },
        Watch { address: v4_mapped(A.address), ..packets },
        Watch { port: 4000u16.to_be_bytes(), ..packets },
        Watch { port: 80u16.to_be_bytes(), ..packets },
        Watch { protocol: 6, ..packets },
    ] {
        assert_eq!(told_of(only_a), [A.id], "{only_a:?}");
    }
    assert_eq!(told_of(Watch { address: v4_mapped(C.address), vni: VNI, ..packets }), [A.id, B.id]);
    for nobody in [
        Watch { endpoint: 99, ..packets },
        Watch { vni: [0, 0, 9, 9], ..packets },
        Watch { mark: 5, ..packets },
        Watch { protocol: 17, port: 80u16.to_be_bytes(), ..packets },
    ] {
        assert!(told_of(nobody).is_empty(), "{nobody:?}");
    }
    // Flows, by either end that is here.
    let told_of = |endpoint, port| {
        one.watch(Watch { endpoint, ..watch(watch_kinds::NEW) });
        one.task_sends(A, &Path { to_mac: B.mac, ..from(A, B.address) }.syn(port, 80));
        one.told().iter().map(|e| e.0.endpoint).collect::<Vec<_>>()
    };
    assert_eq!((told_of(A.id, 1), told_of(B.id, 2), told_of(C.id, 3)), (vec![A.id], vec![B.id], vec![]));
}

#[test]
fn too_many_events_are_counted_and_so_are_those_without_room() {
    let (one, _) = Node::pair();
    let packet = Path { to_mac: B.mac, ..from(A, B.address) }.udp(4000, 80, &[7; 1900]);
    one.watch(Watch { rate: 1, ..watch(watch_kinds::PACKET) });
    let began = nanoseconds();
    for _ in 0..200 {
        one.task_sends(A, &packet);
    }
    // The windows that may have passed on each CPU.
    let windows = (nanoseconds() - began) / mesh_abi::WATCH_WINDOW_NS + 2;
    let (told, limited, lost) = one.event_counts();
    assert_eq!((told + limited, lost), (400, 0));
    assert!(told >= 1 && told <= windows * 64, "{told} in {windows} windows");
    assert_eq!(one.told().len() as u64, told);

    one.watch(Watch { rate: u32::MAX, snaplen: 2048, ..watch(watch_kinds::PACKET) });
    for _ in 0..200 {
        one.task_sends(A, &packet);
    }
    let (told_now, _, lost) = one.event_counts();
    let kept = told_now - told;
    assert!(lost > 0 && kept > 50 && kept + lost == 400, "{kept} told, {lost} lost");
    assert_eq!(one.told().len() as u64, kept);
    one.task_sends(A, &packet);
    assert_eq!(one.told().len(), 2, "there is room again");
}

#[test]
fn xdp_leaves_packets_that_are_looked_at_to_tc() {
    let (one, _) = xdp::nodes(Family::V4);
    let ask = client().syn(5000, PORT_2);
    let stranger = client().udp(9, 4789, &[8, 0, 0, 0, 0, 0, 0x10, 0]);
    one.watch(watch(watch_kinds::NEW | watch_kinds::CLOSED));
    assert_eq!(one.uplink_xdp(&ask).0, xdp::TX);
    assert_eq!(one.told().iter().map(short).collect::<Vec<_>>(), [(NEW, 0, 0)]);
    assert_eq!(one.uplink_xdp(&stranger).0, 1, "dropped at once");
    one.watch(watch(watch_kinds::DROP));
    assert_eq!((one.uplink_xdp(&ask).0, one.uplink_xdp(&stranger).0), (xdp::TX, xdp::PASS));
    one.watch(watch(watch_kinds::PACKET));
    assert_eq!(one.uplink_xdp(&ask).0, xdp::PASS);
    one.set_watch(Watch { until: nanoseconds() - 1_000_000_000, ..ALL });
    assert_eq!(one.uplink_xdp(&ask).0, xdp::TX, "nobody is there any more");
    assert_ne!(one.traffic_to(&port_key(PORT_2, 6)).packets_in, 0);
}
