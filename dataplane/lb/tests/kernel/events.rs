//! Watching: what the programs tell reaches the reader, and nothing stays on behind its back.

use std::{net::Ipv4Addr, os::fd::AsFd};

use aya::maps::Array;
use mesh_abi::Watch;
use mesh_lb::{DataPath, DropReason, Entry, EntryPoint, Fate, WatchFor, What};
use nix::net::if_::if_nametoindex;

use crate::sandbox::{Sandbox, desired, veth};

/// From 10.0.0.5 to 10.0.0.9, UDP 4000 to 53, with a payload of as many bytes.
fn packet(payload: u8) -> Vec<u8> {
    let mut packet = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 5, 8, 0];
    packet.extend([0x45, 0, 0, 28 + payload, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 5, 10, 0, 0, 9]);
    packet.extend([0x0f, 0xa0, 0, 53, 0, 8 + payload, 0, 0]);
    packet.resize(packet.len() + usize::from(payload), 7);
    packet
}

/// Runs the program of a task's link on behalf of an interface that is none: it drops the packet.
fn drop_one(data_path: &mut DataPath, packet: &[u8]) {
    let trial = data_path.run_by_hand(Entry::FromTask, if_nametoindex("t0").unwrap(), packet).unwrap();
    assert_eq!(trial.fate, Fate::Ended(Some(DropReason::SpoofedSource)));
}

fn opened(sandbox: &Sandbox) -> DataPath {
    let mut data_path = sandbox.open();
    data_path.apply(&desired(&[11])).unwrap();
    data_path
}

const DROPS: WatchFor = WatchFor {
    new: false,
    closed: false,
    drops: true,
    packets: false,
    endpoint: None,
    network: None,
    address: None,
    port: None,
    protocol: None,
    mark: None,
    snaplen: 50,
    rate: 10_000,
};

#[test]
fn what_is_watched_is_told_until_the_watcher_goes() {
    let sandbox = Sandbox::enter();
    veth("t0");
    let mut data_path = opened(&sandbox);
    let mut watcher = data_path.watcher().unwrap();
    drop_one(&mut data_path, &packet(20));
    assert_eq!(watcher.next_event(), None, "nothing is watched yet");
    assert!(!watcher.watch(&DROPS).unwrap());
    drop_one(&mut data_path, &packet(20));
    let event = watcher.next_event().expect("the drop");
    assert_eq!(event.what, What::Dropped(DropReason::SpoofedSource));
    assert_eq!((event.program, event.endpoint, event.protocol), (Some(EntryPoint::FromTask), None, 17));
    assert_eq!(event.source, (Ipv4Addr::new(10, 0, 0, 5), 4000).into());
    assert_eq!(event.destination, (Ipv4Addr::new(10, 0, 0, 9), 53).into());
    assert_eq!((event.len, event.bytes), (62, packet(20)[..50].to_vec()));
    assert_eq!(watcher.next_event(), None);

    watcher.watch(&WatchFor { port: Some(54), ..DROPS }).unwrap();
    drop_one(&mut data_path, &packet(20));
    assert_eq!(watcher.next_event(), None, "another port");
    let totals = watcher.totals().unwrap();
    assert_eq!((totals.told, totals.limited, totals.lost), (1, 0, 0));
    drop(watcher);
    drop_one(&mut data_path, &packet(20));
    let mut watcher = data_path.watcher().unwrap();
    assert_eq!(watcher.next_event(), None);
    assert_eq!(watcher.totals().unwrap().told, 1);
}

#[test]
fn a_daemon_that_is_killed_while_it_watches_leaves_nothing_on() {
    let sandbox = Sandbox::enter();
    veth("t0");
    let data_path = opened(&sandbox);
    let mut watcher = data_path.watcher().unwrap();
    watcher.watch(&DROPS).unwrap();
    let watched = || {
        let map: Array<_, Watch> = sandbox.pinned("WATCH").try_into().unwrap();
        map.get(&0, 0).unwrap()
    };
    assert_ne!(watched().until, 0, "it ends by itself");
    // As if the process ended here.
    std::mem::forget(watcher);
    drop(data_path);
    let mut data_path = opened(&sandbox);
    assert_eq!(watched(), Watch::default());
    drop_one(&mut data_path, &packet(0));
    assert_eq!(data_path.watcher().unwrap().next_event(), None);
}

#[test]
fn a_watcher_follows_to_new_maps() {
    let sandbox = Sandbox::enter();
    veth("t0");
    let mut options = sandbox.options();
    options.sizes.peers = 1;
    let mut data_path = DataPath::open(options).unwrap();
    data_path.apply(&desired(&[11])).unwrap();
    let mut watcher = data_path.watcher().unwrap();
    watcher.watch(&DROPS).unwrap();
    let mut more = desired(&[11]);
    for n in 3..6 {
        more.peers.insert(Ipv4Addr::new(192, 0, 2, n).into(), mesh_lb::PeerEntry::default());
    }
    data_path.apply(&more).unwrap();
    assert!(watcher.watch(&DROPS).unwrap(), "the maps are new");
    drop_one(&mut data_path, &packet(0));
    assert!(watcher.next_event().is_some());
    assert!(!watcher.watch(&DROPS).unwrap());
    assert!(watcher.as_fd().try_clone_to_owned().is_ok());
}
