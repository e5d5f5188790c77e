//! The server in a real namespace, asked by dig.
#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

mod serving;
mod support;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_dns::{Error, Forwarder, Sockets};
use support::{dig, inside, namespace, prod, run, serve, status};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

fn nobody() -> Forwarder {
    Forwarder::to_servers([])
}

#[test]
fn names_over_udp_and_tcp() {
    let (node, task) = (namespace(), namespace());
    inside(&node, || async {
        let names: &[(&str, &[&str])] =
            &[("web", &["10.10.3.2"]), ("tasks.web", &["10.10.3.5", "fd00:3::5"])];
        let (server, _view) = serve(&task, prod(names), nobody());
        for transport in ["+notcp", "+tcp"] {
            assert_eq!(dig(&task, &format!("{transport} +short WEB")).await.trim(), "10.10.3.2");
            assert_eq!(
                dig(&task, &format!("{transport} +short tasks.web.prod AAAA")).await.trim(),
                "fd00:3::5"
            );
            assert_eq!(
                dig(&task, &format!("{transport} +short -x 10.10.3.5")).await.trim(),
                "tasks.web.prod."
            );
            let empty = dig(&task, &format!("{transport} web AAAA")).await;
            assert_eq!(status(&empty).0, "NOERROR", "{empty}");
            assert!(empty.contains("ANSWER: 0"), "{empty}");
            let unknown = dig(&task, &format!("{transport} nope.prod")).await;
            assert_eq!(status(&unknown).0, "NXDOMAIN", "{unknown}");
        }
        let stats = server.stats();
        assert_eq!((stats.answered, stats.unknown, stats.forwarded), (10, 2, 0));
    });
}

#[test]
fn a_new_view_counts_from_the_next_query_on() {
    let (node, task) = (namespace(), namespace());
    inside(&node, || async {
        let (_server, view) = serve(&task, prod(&[("web", &["10.10.3.2"])]), nobody());
        assert_eq!(dig(&task, "+short web").await.trim(), "10.10.3.2");
        view.send_replace(Arc::new(prod(&[("web", &["10.10.3.9"])])));
        assert_eq!(dig(&task, "+short web").await.trim(), "10.10.3.9");
        drop(view);
        assert_eq!(dig(&task, "+short web").await.trim(), "10.10.3.9");
    });
}

#[test]
fn addresses_take_turns_also_when_families_alternate() {
    let (node, task) = (namespace(), namespace());
    inside(&node, || async {
        let names: &[(&str, &[&str])] = &[("web", &["10.10.3.1", "10.10.3.2", "fd00::1", "fd00::2"])];
        let (_server, _view) = serve(&task, prod(names), nobody());
        let mut first = BTreeMap::new();
        for _ in 0..4 {
            for qtype in ["A", "AAAA"] {
                let text = dig(&task, &format!("+short web {qtype}")).await;
                *first.entry(text.lines().next().unwrap().to_owned()).or_insert(0) += 1;
            }
        }
        assert_eq!(first.values().copied().collect::<Vec<_>>(), [2, 2, 2, 2], "{first:?}");
    });
}

#[test]
fn a_hundred_addresses_by_way_of_tcp() {
    let (node, task) = (namespace(), namespace());
    inside(&node, || async {
        let list: Vec<String> = (1..=100).map(|n| format!("10.10.3.{n}")).collect();
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        let (server, _view) = serve(&task, prod(&[("tasks.web", &list)]), nobody());
        let cut = dig(&task, "+ignore +noedns tasks.web").await;
        assert!(status(&cut).1.contains("tc"), "{cut}");
        let whole = dig(&task, "+noedns +short tasks.web").await;
        assert_eq!(whole.lines().filter(|line| line.starts_with("10.")).count(), 100, "{whole}");
        let by_edns = dig(&task, "+ignore +bufsize=4096 tasks.web").await;
        assert!(!status(&by_edns).1.contains("tc") && by_edns.contains("ANSWER: 100"), "{by_edns}");
        assert_eq!(server.stats().truncated, 2);
    });
}

#[test]
fn noise_is_counted_and_the_server_goes_on() {
    let (node, task) = (namespace(), namespace());
    inside(&node, || async {
        let (server, _view) = serve(&task, prod(&[("web", &["10.10.3.2"])]), nobody());
        let client = |bytes: &'static [u8]| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.send_to(bytes, "127.0.0.11:53").unwrap();
        };
        task.run(|| {
            client(b"x");
            client(&[0xff; 40]);
            client(b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x3f");
        })
        .unwrap();
        assert_eq!(dig(&task, "+short web").await.trim(), "10.10.3.2");
        assert_eq!(server.stats().malformed, 3);
    });
}

#[test]
fn a_taken_address_is_told_and_stopping_frees_it() {
    let (node, task) = (namespace(), namespace());
    inside(&node, || async {
        let (server, _view) = serve(&task, prod(&[]), nobody());
        let error = Sockets::open(&task).unwrap_err();
        assert!(matches!(error, Error::Taken { protocol: "UDP", .. }), "{error}");
        server.stop().await;
        assert_eq!(run(&task, "ss", "-Hlntu").await.trim(), "");
        let (server, _view) = serve(&task, prod(&[]), nobody());
        server.stop().await;
    });
}

/// A name server that answers every question with 192.0.2.1, over UDP with TC set where the name begins with `big`.
async fn upstream(address: SocketAddr) {
    let udp = UdpSocket::bind(address).await.unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
            let mut reply = stub_answer(&buffer[..length]);
            if buffer[13..16] == *b"big" {
                reply[2] |= 2;
            }
            udp.send_to(&reply, client).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await.unwrap();
            let reply = stub_answer(&query);
            stream
                .write_all(&[&(reply.len() as u16).to_be_bytes(), reply.as_slice()].concat())
                .await
                .unwrap();
        }
    });
}

/// The question, an answer by a pointer to its name, and whatever else (EDNS) the query had.
fn stub_answer(query: &[u8]) -> Vec<u8> {
    let name = query[12..].iter().position(|b| *b == 0).unwrap();
    let (head, rest) = query.split_at(12 + name + 5);
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];
    let mut reply = [head, &record, rest].concat();
    (reply[2], reply[3], reply[7]) = (0x81, 0x80, 1);
    reply
}

#[test]
fn the_rest_is_forwarded() {
    let (node, task) = (namespace(), namespace());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    inside(&node, || async {
        upstream("127.0.0.1:53".parse().unwrap()).await;
        let (server, view) = serve(&task, prod(&[("web", &["10.10.3.2"])]), Forwarder::from_file(&path));
        // Without a file: told at once, not after a timeout of the client's.
        let none = dig(&task, "example.com").await;
        assert_eq!(status(&none).0, "SERVFAIL", "{none}");
        // Our own address would lead back to us; 127.0.0.2 refuses; 127.0.0.1 answers.
        std::fs::write(&path, "nameserver 127.0.0.11\nnameserver 127.0.0.2\nnameserver 127.0.0.1\n").unwrap();
        for transport in ["+notcp", "+tcp"] {
            let got = dig(&task, &format!("{transport} example.com")).await;
            assert!(got.contains("192.0.2.1") && status(&got).0 == "NOERROR", "{got}");
            assert!(got.contains("EDNS: version: 0"), "{got}");
            assert!(!got.contains("COOKIE"), "a cookie is between the client and us: {got}");
        }
        // Single labels that we do not know go on; names of our networks do not.
        assert!(dig(&task, "+short single").await.contains("192.0.2.1"));
        assert_eq!(status(&dig(&task, "nope.prod").await).0, "NXDOMAIN");
        // What upstream cuts over UDP is fetched over TCP.
        let whole = dig(&task, "+ignore big.example.com").await;
        assert!(!status(&whole).1.contains("tc"), "{whole}");
        let stats = server.stats();
        assert_eq!((stats.forwarded, stats.failed), (5, 1));
        // Internal networks have no way out.
        let mut internal = prod(&[]);
        internal.forward = false;
        view.send_replace(Arc::new(internal));
        assert_eq!(status(&dig(&task, "example.com").await).0, "NXDOMAIN");
        assert_eq!(server.stats().forwarded, 5);
    });
}

#[test]
fn a_silent_name_server_is_passed_over_and_remembered() {
    let (node, task) = (namespace(), namespace());
    inside(&node, || async {
        upstream("127.0.0.1:53".parse().unwrap()).await;
        let _silent = UdpSocket::bind("127.0.0.3:53").await.unwrap();
        let servers = ["127.0.0.3", "127.0.0.1"].map(|a| (a.parse::<IpAddr>().unwrap(), 53).into());
        let (server, _view) = serve(&task, prod(&[]), Forwarder::to_servers(servers));
        assert!(dig(&task, "+short example.com").await.contains("192.0.2.1"));
        // The second time the one that answered is asked first: well below the first one's patience.
        assert!(dig(&task, "+short +time=1 example.com").await.contains("192.0.2.1"));
        assert_eq!(server.stats().failed, 0);
        // The server goes while a question is under way, and so do its sockets.
        server.stop().await;
        assert_eq!(run(&task, "ss", "-Hlntu").await.trim(), "");
    });
}
