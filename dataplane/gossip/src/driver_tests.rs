//! Three members on loopback ports.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use mesh_types::ClusterId;
use tokio::{
    net::UdpSocket,
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    ErrandError, Gossip, GossipConfig, GossipError, Interest, KeyRing, MemberState, ReachSpec, Reached,
    Tables, Timing, Way,
    simulation::{net, node, own},
};

const LIMIT: Duration = Duration::from_secs(20);

fn config(n: u8, key: u8) -> GossipConfig {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    GossipConfig {
        node: node(n),
        cluster: ClusterId::from_u128(1),
        bind: local,
        advertise: local,
        keys: KeyRing::new(vec![[key; 32]]).unwrap(),
        incarnation: 1,
        timing: Timing::default(),
    }
}

async fn until(watch: &mut watch::Receiver<Arc<Tables>>, reached: impl Fn(&Tables) -> bool) {
    let reached = timeout(LIMIT, watch.wait_for(|tables| reached(tables)));
    assert!(reached.await.is_ok(), "not reached: {:?}", watch.borrow());
}

fn tasks(tables: &Tables) -> BTreeSet<u128> {
    let table = tables.endpoints.get(&net(1));
    table.into_iter().flat_map(|t| t.keys()).map(|key| key.task.as_u128()).collect()
}

async fn cluster() -> Vec<Gossip> {
    let mut members = Vec::new();
    for n in 1..=3 {
        members.push(Gossip::start(config(n, 1)).await.unwrap());
    }
    let peers: Vec<_> = members.iter().zip(1..).map(|(member, n)| (node(n), member.local_addr())).collect();
    for member in &members {
        member.set_interest(Interest::Networks([net(1)].into())).await;
        member.set_peers(peers.clone()).await;
    }
    for member in &members {
        until(&mut member.watch(), |t| {
            t.members.len() == 3 && t.members.values().all(|m| m.state == MemberState::Alive)
        })
        .await;
    }
    members
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_tell_each_other_what_runs() {
    let members = cluster().await;
    let begin = Instant::now();
    members[0].announce(own(1, 1, [7])).await;
    for member in &members {
        until(&mut member.watch(), |t| tasks(t) == [7].into()).await;
    }
    println!("told after {:?}", begin.elapsed());
    // More than datagrams carry: the rest comes by TCP.
    members[1].announce(own(2, 1, 1000..3000)).await;
    for member in &members {
        until(&mut member.watch(), |t| tasks(t).len() == 2001).await;
    }
    // A dead member's entries go, a leaving one's too.
    let begin = Instant::now();
    members[0].shutdown().await;
    until(&mut members[2].watch(), |t| !tasks(t).contains(&7)).await;
    println!("found dead after {:?}", begin.elapsed());
    members[1].leave().await;
    until(&mut members[2].watch(), |t| {
        tasks(t).is_empty() && t.members.get(&node(2)).unwrap().state == MemberState::Left
    })
    .await;
    assert!(members[2].stats().streams_in > 0);
    for member in &members {
        member.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_counted_and_keys_rotate() {
    let members = cluster().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(b"noise", members[0].local_addr()).await.unwrap();
    socket.send_to(&[1; 100], members[0].local_addr()).await.unwrap();
    // Another cluster may have the same keys, by whatever accident.
    let foreign =
        Gossip::start(GossipConfig { cluster: ClusterId::from_u128(2), ..config(9, 1) }).await.unwrap();
    foreign.set_peers(vec![(node(1), members[0].local_addr())]).await;
    timeout(LIMIT, async {
        loop {
            let stats = members[0].stats();
            if stats.dropped_malformed == 1 && stats.dropped_unknown_key == 1 && stats.dropped_forged > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert!(!members[0].watch().borrow().members.contains_key(&node(9)));
    foreign.shutdown().await;
    for keys in [vec![[1; 32], [2; 32]], vec![[2; 32], [1; 32]], vec![[2; 32]]] {
        for member in &members {
            member.set_keys(KeyRing::new(keys.clone()).unwrap()).await;
        }
    }
    members[0].announce(own(1, 1, [9])).await;
    for member in &members {
        until(&mut member.watch(), |t| tasks(t) == [9].into()).await;
        member.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_strangers_do_not_keep_members_out() {
    // Listed by an address of its own, each member is known; whoever comes from another one is not.
    let first = Gossip::start(config(1, 1)).await.unwrap();
    let second = Gossip::start(config(2, 1)).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..100 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 9], 0))).unwrap();
        silent.push(socket.connect(first.local_addr()).await.unwrap());
    }
    let peers = vec![(node(1), first.local_addr()), (node(2), second.local_addr())];
    for member in [&first, &second] {
        member.set_interest(Interest::Networks([net(1)].into())).await;
        member.set_peers(peers.clone()).await;
    }
    // More than datagrams carry.
    second.announce(own(2, 1, 1000..3000)).await;
    until(&mut first.watch(), |t| tasks(t).len() == 2000).await;
    timeout(LIMIT, async {
        while first.stats().dropped_overload == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    drop(silent);
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_tells_how_it_stands() {
    let members = cluster().await;
    members[0].announce(own(1, 1, [7])).await;
    until(&mut members[1].watch(), |t| tasks(t) == [7].into()).await;
    let report = members[1].report().await.unwrap();
    let known = report.members[&node(1)];
    assert_eq!((report.node, known.state, known.entries), (node(2), MemberState::Alive, 2));
    assert!(known.version.counter >= 2 && known.addr == members[0].local_addr(), "{known:?}");
    let entries = members[1].entries().await.unwrap();
    assert_eq!(entries.iter().filter(|entry| entry.item.key().owner == node(1)).count(), 2);
    timeout(LIMIT, async {
        while members[1].rates().datagrams_in == 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    // In the end every table has been found equal to somebody's.
    timeout(LIMIT * 2, async {
        loop {
            let tables = members[1].report().await.unwrap().tables;
            if tables.len() == 2 && tables.values().all(|t| t.equal.is_some() && t.behind.is_none()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    for member in &members {
        member.shutdown().await;
    }
    assert_eq!(members[1].report().await, None);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = Gossip::start(config(1, 1)).await.unwrap();
    let taken = GossipConfig { bind: first.local_addr(), ..config(2, 1) };
    let error = Gossip::start(taken).await.err().unwrap();
    assert!(error.to_string().contains(&first.local_addr().to_string()), "{error}");
    let unspecified = GossipConfig { advertise: SocketAddr::from(([0, 0, 0, 0], 7946)), ..config(2, 1) };
    assert!(matches!(Gossip::start(unspecified).await, Err(GossipError::Advertise(_))));
    first.shutdown().await;
    let again = Gossip::start(GossipConfig { bind: first.local_addr(), ..config(1, 1) }).await;
    again.unwrap().shutdown().await;
}

#[tokio::test]
async fn members_find_out_how_they_reach_each_other() {
    let members = cluster().await;
    let (one, two) = (&members[0], &members[1]);
    let spec = ReachSpec {
        to: two.local_addr(),
        advertise: one.local_addr(),
        // No data path answers on loopback, and no manager listens.
        data_path: Some([127, 0, 0, 1].into()),
        manager: false,
    };
    two.set_data_paths([127, 0, 0, 1].into(), Vec::new()).await;
    let reached = one.reach(&spec).await;
    let both = [Way::Udp, Way::Tcp].into();
    assert_eq!((&reached.out, &reached.back), (&both, &both));
    assert_eq!(reached.back_closed, [Way::DataPath].into());
    assert_eq!(reached.version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    let (ahead, error) = reached.clock.unwrap();
    assert!(ahead.unsigned_abs() <= error + 1, "{ahead} ms, give or take {error}");
    // Only the UDP half listens there.
    let deaf = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let reached = one.reach(&ReachSpec { to: deaf.local_addr().unwrap(), ..spec }).await;
    assert_eq!(reached, Reached::default());
}

#[tokio::test]
async fn members_alone_are_answered() {
    let (one, two) = (Gossip::start(config(1, 1)).await.unwrap(), Gossip::start(config(2, 1)).await.unwrap());
    let nobody = one.ask(two.local_addr(), b"who?").await;
    assert!(matches!(nobody, Err(ErrandError::Closed(_))), "{nobody:?}");
    two.answer_by(Arc::new(|mut question| {
        Box::pin(async move {
            question.reverse();
            question
        })
    }));
    assert_eq!(one.ask(two.local_addr(), b"").await.unwrap(), b"");
    let long = vec![7; 100_000];
    assert_eq!(
        one.ask(two.local_addr(), &[&long[..], b"a"].concat()).await.unwrap(),
        [b"a", &long[..]].concat()
    );
    let stranger = Gossip::start(config(3, 2)).await.unwrap();
    let refused = stranger.ask(two.local_addr(), b"who?").await;
    assert!(matches!(refused, Err(ErrandError::Closed(_) | ErrandError::Connection { .. })), "{refused:?}");
    let there = two.local_addr();
    two.shutdown().await;
    let gone = one.ask(there, b"who?").await;
    assert!(matches!(gone, Err(ErrandError::Connection { .. })), "{gone:?}");
}
