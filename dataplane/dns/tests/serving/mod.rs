//! How names are served: floods, many connections, and sockets that outlive their server.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use mesh_dns::{DNS_ADDRESS, Error, Forwarder, Sockets};
use mesh_netlink::NetNs;

use crate::support::{inside, namespace, prod, serve_all, serve_on};

/// Far more than any answer takes, on whatever machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// `web`, type A, class IN, under id 7.
const QUERY: &[u8] = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x00\x00\x01\x00\x01";
const ANSWER: &[u8] = &[10, 10, 3, 2];

fn nobody() -> Forwarder {
    Forwarder::to_servers([])
}

fn descriptors(sockets: &Sockets) -> Vec<OwnedFd> {
    sockets.descriptors().into_iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect()
}

fn client(task: &NetNs) -> UdpSocket {
    let socket = task.run(|| UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(DNS_ADDRESS).unwrap();
    socket
}

fn connection(task: &NetNs) -> TcpStream {
    let stream = task.run(|| TcpStream::connect(DNS_ADDRESS).unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn framed(query: &[u8]) -> Vec<u8> {
    [&(query.len() as u16).to_be_bytes(), query].concat()
}

fn hear(client: &UdpSocket) -> bool {
    let mut buffer = [0; 512];
    let length = client.recv(&mut buffer).unwrap();
    buffer[..length].ends_with(ANSWER)
}

fn hear_framed(stream: &mut TcpStream) -> bool {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    message.ends_with(ANSWER)
}

#[test]
fn what_is_asked_while_nobody_serves_waits_in_the_sockets() {
    let (node, task) = (namespace(), namespace());
    inside(&node, || async {
        let view = || prod(&[("web", &["10.10.3.2"])]);
        let sockets = Sockets::open(&task).unwrap();
        let kept = descriptors(&sockets);
        let (server, _view) = serve_on(sockets, view(), nobody());
        server.stop().await;
        let (asked, mut stream) = (client(&task), connection(&task));
        nix::sys::socket::setsockopt(&asked, nix::sys::socket::sockopt::RcvBufForce, &(4 << 20)).unwrap();
        for _ in 0..1000 {
            asked.send(QUERY).unwrap();
        }
        stream.write_all(&framed(QUERY)).unwrap();
        let (server, _view) = serve_on(Sockets::adopt(&task, kept).unwrap(), view(), nobody());
        let hear_all = move || (0..1000).all(|_| hear(&asked)) && hear_framed(&mut stream);
        let heard = tokio::task::spawn_blocking(hear_all).await;
        assert!(heard.unwrap());
        assert_eq!(server.stats().answered, 1001);
    });
}

#[test]
fn sockets_of_elsewhere_are_not_taken_over() {
    let (task, other) = (namespace(), namespace());
    let refused = |ns: &NetNs, descriptors: Vec<OwnedFd>| {
        let error = Sockets::adopt(ns, descriptors).unwrap_err();
        assert!(matches!(error, Error::Foreign(_)), "{error}");
    };
    let sockets = Sockets::open(&task).unwrap();
    refused(&other, descriptors(&sockets));
    refused(&task, descriptors(&sockets).into_iter().take(1).collect());
    refused(&task, descriptors(&sockets).into_iter().skip(1).collect());
    refused(&task, Vec::new());
    let elsewhere = task.run(|| {
        let (udp, tcp) =
            (UdpSocket::bind("127.0.0.12:53").unwrap(), TcpListener::bind("127.0.0.12:53").unwrap());
        vec![OwnedFd::from(udp), OwnedFd::from(tcp)]
    });
    refused(&task, elsewhere.unwrap());
    // A connection is no listener.
    let [udp, _] = <[OwnedFd; 2]>::try_from(descriptors(&sockets)).unwrap();
    refused(&task, vec![udp, OwnedFd::from(connection(&task))]);
    // All of them were closed, and the right ones are still right.
    drop(Sockets::adopt(&task, descriptors(&sockets)).unwrap());
}

#[test]
fn one_tasks_flood_does_not_keep_anothers_answers() {
    let (node, flooding, asking) = (namespace(), namespace(), namespace());
    inside(&node, || async {
        let view = prod(&[("web", &["10.10.3.2"])]);
        let servers = serve_all(&[&flooding, &asking], &view, nobody());
        let over = AtomicBool::new(false);
        // Some that are answered from what was prepared, some that are made anew, some that are forwarded, some that are
        // no queries; and many on one connection.
        let flood = |kind: u8| {
            let socket = client(&flooding);
            let mut query = QUERY.to_vec();
            match kind {
                1 => query[13] = b'x',
                2 => query[2] = 0x80,
                _ => {}
            }
            for round in 0u64.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                query[..2].copy_from_slice(&(round as u16).to_be_bytes());
                // Its own queues being full is a flood's lot.
                let _ = socket.send(&query);
            }
        };
        let pipeline = || {
            let mut stream = connection(&flooding);
            stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            let many = framed(QUERY).repeat(200);
            while !over.load(Ordering::Relaxed) {
                // It never reads: sooner or later nothing more can be written.
                if stream.write_all(&many).is_err() {
                    stream = connection(&flooding);
                }
            }
        };
        std::thread::scope(|scope| {
            (0..3).for_each(|kind| drop(scope.spawn(move || flood(kind))));
            scope.spawn(pipeline);
            let asked = client(&asking);
            let mut stream = connection(&asking);
            let mut answered = 0;
            for _ in 0..200 {
                asked.send(QUERY).unwrap();
                answered += u32::from(hear(&asked));
                stream.write_all(&framed(QUERY)).unwrap();
                answered += u32::from(hear_framed(&mut stream));
            }
            over.store(true, Ordering::Relaxed);
            assert_eq!(answered, 400);
        });
        assert_eq!(servers.stats(1).answered, 400);
        assert!(servers.stats(0).malformed > 0 && servers.stats(0).answered > 0);
    });
}

#[test]
fn more_connections_than_one_task_may_have_are_closed() {
    let (node, task) = (namespace(), namespace());
    inside(&node, || async {
        let (_server, _view) =
            serve_on(Sockets::open(&task).unwrap(), prod(&[("web", &["10.10.3.2"])]), nobody());
        let asked = |mut stream: TcpStream| async {
            let work = move || {
                // One that is closed may refuse what is written, or answer with an end.
                let mut octet = [0];
                let open =
                    stream.write_all(&framed(QUERY)).is_ok() && matches!(stream.read(&mut octet), Ok(1));
                (open, stream)
            };
            tokio::task::spawn_blocking(work).await.unwrap()
        };
        let mut kept = Vec::new();
        for _ in 0..64 {
            let (open, stream) = asked(connection(&task)).await;
            assert!(open, "{} are open", kept.len());
            kept.push(stream);
        }
        assert!(!asked(connection(&task)).await.0, "one too many");
        // Place for one as soon as another one goes.
        drop(kept.pop());
        let deadline = std::time::Instant::now() + PATIENCE;
        while !asked(connection(&task)).await.0 {
            assert!(std::time::Instant::now() < deadline, "no place for a new one");
        }
    });
}
