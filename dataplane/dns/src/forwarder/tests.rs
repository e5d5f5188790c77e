//! In this process's own namespace, over loopback addresses of each test's own.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{net::UdpSocket, task::JoinHandle, time::timeout};

use super::{
    wire::tests::{asked, response},
    *,
};

/// A name server on a port of its own, which counts what it is asked.
struct Stub {
    address: SocketAddr,
    heard: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// What it does with the n-th question.
enum Does {
    Says(u8, u32),
    Nothing,
}

impl Stub {
    async fn start(does: impl Fn(usize) -> Does + Send + 'static) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, heard) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let question = Asked::read(&buffer[..length]).unwrap();
                let Does::Says(code, ttl) = does(count.fetch_add(1, Ordering::Relaxed)) else { continue };
                let found: &[(u16, u32, &[u8])] = if code == 0 { &[(1, ttl, &[192, 0, 2, 1])] } else { &[] };
                let mut bytes = response(&question, found, &[(ttl, ttl)], code);
                bytes[..2].copy_from_slice(&buffer[..2]);
                socket.send_to(&bytes, from).await.unwrap();
            }
        });
        Self { address, heard, task }
    }

    fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn query(name: &str) -> Vec<u8> {
    asked(name, 1).query(0x4321, true)
}

fn to(stubs: &[&Stub]) -> TaskForwarder {
    Forwarder::to_servers(stubs.iter().map(|stub| stub.address)).for_task()
}

/// Asks no server twice only because this machine is slow.
fn patiently_to(stubs: &[&Stub]) -> TaskForwarder {
    let servers = Servers::Fixed(stubs.iter().map(|stub| stub.address).collect());
    let mut upstream = Upstream::new(servers, Place::Here, NODES_CACHE);
    Arc::get_mut(&mut upstream).unwrap().gap = Duration::from_secs(60);
    TaskForwarder { upstream, share: Share::new(&Arc::default()) }
}

/// The code of the response.
async fn code(forwarder: &TaskForwarder, name: &str) -> Option<u8> {
    let response = forwarder.forward(&query(name), 512).await?;
    assert_eq!(response[..2], [0x43, 0x21]);
    Some(response[3] & 0x0f)
}

#[tokio::test]
async fn an_answer_is_asked_for_once() {
    let stub = Stub::start(|_| Does::Says(0, 60)).await;
    let forwarder = patiently_to(&[&stub]);
    assert!(forwarder.cached(&query("a.example"), 512).is_none());
    for _ in 0..3 {
        assert_eq!(code(&forwarder, "a.example").await, Some(0));
    }
    assert!(forwarder.cached(&query("A.example"), 512).is_some());
    assert_eq!(stub.heard(), 1);
    assert_eq!(code(&forwarder, "b.example").await, Some(0));
    assert_eq!(stub.heard(), 2);
}

#[tokio::test]
async fn equal_questions_at_once_are_one() {
    let stub = Stub::start(|n| if n == 0 { Does::Nothing } else { Does::Says(0, 0) }).await;
    let forwarder = Arc::new(to(&[&stub]));
    // The first is lost on its way; while it is under way, others ask the same.
    let ask = || {
        let forwarder = Arc::clone(&forwarder);
        tokio::spawn(async move { code(&forwarder, "a.example").await })
    };
    let all: Vec<_> = (0..20).map(|_| ask()).collect();
    for one in all {
        assert_eq!(one.await.unwrap(), Some(0));
    }
    assert_eq!(stub.heard(), 2, "one that was lost, and one again");
    // Nothing is kept of what is right for no time.
    assert_eq!(code(&forwarder, "a.example").await, Some(0));
    assert!(stub.heard() >= 3);
}

#[tokio::test]
async fn who_waits_takes_over_from_who_goes() {
    let stub = Stub::start(|n| if n == 0 { Does::Nothing } else { Does::Says(0, 60) }).await;
    let forwarder = Arc::new(to(&[&stub]));
    let (first, second) = (Arc::clone(&forwarder), Arc::clone(&forwarder));
    let first = tokio::spawn(async move { code(&first, "a.example").await });
    while stub.heard() == 0 {
        tokio::task::yield_now().await;
    }
    let second = tokio::spawn(async move { code(&second, "a.example").await });
    tokio::task::yield_now().await;
    first.abort();
    assert_eq!(second.await.unwrap(), Some(0));
}

#[tokio::test]
async fn a_name_server_that_asks_us_back_makes_no_storm() {
    // Asks back what it is asked, and waits for the answer before it gives one: never.
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let forwarder = Arc::new(Forwarder::to_servers([socket.local_addr().unwrap()]).for_task());
    let (back, heard) = (Arc::clone(&forwarder), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&heard);
    let server = tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let (back, query) = (Arc::clone(&back), buffer[..length].to_vec());
            tokio::spawn(async move { back.forward(&query, 512).await });
        }
    });
    let answer = timeout(Duration::from_secs(60), code(&forwarder, "a.example")).await.unwrap();
    assert_eq!(answer, None);
    let heard = heard.load(Ordering::Relaxed);
    // What was in the air when the first gave up may have gone round once more.
    assert!((1..=4).contains(&heard), "asked {heard} times");
    server.abort();
}

#[tokio::test]
async fn failures_and_silence_are_passed_over() {
    let failing = Stub::start(|_| Does::Says(wire::SERVFAIL, 0)).await;
    let silent = Stub::start(|_| Does::Nothing).await;
    let good = Stub::start(|_| Does::Says(0, 0)).await;
    let forwarder = to(&[&failing, &silent, &good]);
    assert_eq!(code(&forwarder, "a.example").await, Some(0));
    let so_far = silent.heard();
    assert!(failing.heard() >= 1 && so_far >= 1 && good.heard() >= 1);
    // The silent one is asked after the others from now on.
    assert_eq!(forwarder.upstream.in_order(&forwarder.servers())[2], silent.address);
    for _ in 0..20 {
        assert_eq!(code(&forwarder, "a.example").await, Some(0));
    }
    assert!(silent.heard() < so_far + 10, "asked each time");
}

#[tokio::test]
async fn that_there_is_no_such_name_is_an_answer() {
    let (first, second) =
        (Stub::start(|_| Does::Says(3, 60)).await, Stub::start(|_| Does::Says(0, 60)).await);
    let forwarder = patiently_to(&[&first, &second]);
    for _ in 0..2 {
        assert_eq!(code(&forwarder, "a.example").await, Some(3));
    }
    assert_eq!((first.heard(), second.heard()), (1, 0));
}

#[tokio::test]
async fn a_failure_of_all_is_told_and_soon_forgotten() {
    let stub = Stub::start(|n| if n == 0 { Does::Says(wire::REFUSED, 0) } else { Does::Says(0, 60) }).await;
    let forwarder = patiently_to(&[&stub]);
    assert_eq!(code(&forwarder, "a.example").await, Some(wire::REFUSED));
    assert_eq!(code(&forwarder, "a.example").await, Some(0));
    assert_eq!(code(&to(&[]), "a.example").await, None);
}

#[tokio::test]
async fn a_closed_port_is_no_silence() {
    let closed = Stub::start(|_| Does::Nothing).await;
    closed.task.abort();
    while !closed.task.is_finished() {
        tokio::task::yield_now().await;
    }
    let forwarder = to(&[&closed]);
    assert_eq!(timeout(Duration::from_secs(60), code(&forwarder, "a.example")).await, Ok(None));
}

#[tokio::test]
async fn other_servers_know_other_names() {
    let (one, two) = (Stub::start(|_| Does::Says(0, 60)).await, Stub::start(|_| Does::Says(3, 60)).await);
    let forwarder = to(&[&one]);
    assert_eq!(code(&forwarder, "a.example").await, Some(0));
    // As when a file changes.
    let upstream = Arc::clone(&forwarder.upstream);
    let changed = Upstream::new(Servers::Fixed([two.address].into()), Place::Here, NODES_CACHE);
    std::mem::swap(&mut *changed.lock(), &mut *upstream.lock());
    let forwarder = TaskForwarder { upstream: changed, share: Share::new(&Arc::default()) };
    assert!(forwarder.cached(&query("a.example"), 512).is_none(), "the others said it");
    assert_eq!(code(&forwarder, "a.example").await, Some(3));
}

#[tokio::test]
async fn one_tasks_flood_leaves_room_for_the_others() {
    let silent = Stub::start(|_| Does::Nothing).await;
    let node = Forwarder::to_servers([silent.address]);
    let (flooding, other) = (Arc::new(node.for_task()), node.for_task());
    let flood: Vec<_> = (0..2000)
        .map(|n| {
            let flooding = Arc::clone(&flooding);
            tokio::spawn(async move { code(&flooding, &format!("n{n}.example")).await })
        })
        .collect();
    while silent.heard() < 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(other.share.take().is_some());
    let refused = flood.iter().filter(|one| one.is_finished()).count();
    assert!(refused >= 2000 - 512, "{refused} were refused at once");
    flood.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn people_see_who_answered() {
    let stub = Stub::start(|_| Does::Says(0, 60)).await;
    let forwarder = to(&[&stub]);
    let name = hickory_proto::rr::Name::from_ascii("a.example.").unwrap();
    let first = forwarder.look_up(&name, crate::RecordType::A).await.unwrap();
    assert_eq!((first.code.as_str(), first.by), ("NOERROR", Some(stub.address)));
    assert_eq!(first.records.len(), 1);
    assert!(first.records[0].contains("192.0.2.1"), "{:?}", first.records);
    assert_eq!(forwarder.look_up(&name, crate::RecordType::A).await.unwrap().by, None);
}
