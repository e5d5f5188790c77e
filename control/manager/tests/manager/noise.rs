//! Every method of the listener, asked with noise by a stranger, a worker and a manager: each call is answered, nothing
//! panics, and the cluster is afterwards what it was.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::{Buf, BufMut};
use mesh_api::{transport::connect, v1};
use mesh_ca::{JoinToken, join_client_config, server_name};
use mesh_types::Role;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::timeout;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

use crate::support::*;

/// Messages of each kind for each method and caller.
const ROUNDS: usize = 50;
/// Methods that end the caller's membership, even when asked with a message of unknown fields only.
const FAREWELLS: &[&str] = &["/mesh.v1.Dispatcher/Leave"];

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Messages as bytes, whatever the method.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = usize;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = usize;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let length = from.remaining();
        from.advance(length);
        Ok(Some(length))
    }
}

/// Bytes that mean nothing.
fn noise(random: &mut StdRng) -> Vec<u8> {
    let length = random.random_range(0..200);
    (0..length).map(|_| random.random()).collect()
}

/// A message by the rules of protobuf: fields 1 to 12 of any type, texts of all sorts, messages within.
fn well_formed(random: &mut StdRng, depth: usize) -> Vec<u8> {
    let texts =
        ["", "web", "10.0.0.0/8", "::", "256.1.1.1", "\u{0}", "a\nb", "80:80", "999999999999999999999", "ä"];
    let mut message = Vec::new();
    for _ in 0..random.random_range(0..8) {
        let field: u8 = random.random_range(1..=12);
        match random.random_range(0..4) {
            0 => {
                message.push(field << 3);
                let value: u64 = if random.random() { random.random_range(0..4) } else { random.random() };
                varint(&mut message, value);
            }
            1 => {
                message.push(field << 3 | 1);
                message.extend(random.random::<u64>().to_le_bytes());
            }
            _ => {
                let inner = match depth {
                    0..3 if random.random() => well_formed(random, depth + 1),
                    _ if random.random() => noise(random),
                    _ => texts[random.random_range(0..texts.len())].as_bytes().to_vec(),
                };
                message.push(field << 3 | 2);
                varint(&mut message, inner.len() as u64);
                message.extend(inner);
            }
        }
    }
    message
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// How the call ended; none for callers that are cut off after a while, as strangers are.
async fn ask(channel: &Channel, path: &'static str, message: Vec<u8>) -> Option<i32> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.ok()?;
    let call = client.server_streaming(Request::new(message.clone()), PathAndQuery::from_static(path), Raw);
    // A stream that goes on is an answer, too.
    let answer = timeout(Duration::from_secs(20), call).await;
    let answer = answer.unwrap_or_else(|_| panic!("{path} does not answer {message:02x?}"));
    Some(answer.map_or_else(|status| status.code(), |_| Code::Ok).into())
}

#[tokio::test]
async fn every_method_answers_noise() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
    let home = Home::new();
    let manager = home.init().await;
    let pinned: JoinToken = token(&manager, v1::Role::Worker, false).await.parse().unwrap();
    let config = join_client_config(*pinned.digest()).unwrap();
    let stranger = connect(manager.listen_addr(), server_name(Role::Manager), config).await.unwrap();
    let worker = Member::join(&manager, "second").await;
    let itself = dial(&manager, manager.identity().clone()).await;
    let cluster = manager.state().borrow().cluster();

    let mut random = StdRng::seed_from_u64(7);
    let mut codes = BTreeSet::new();
    for &path in mesh_api::METHODS {
        for _ in 0..ROUNDS {
            for message in [noise(&mut random), well_formed(&mut random, 0)] {
                codes.extend(ask(&stranger, path, message.clone()).await);
                if FAREWELLS.contains(&path) {
                    continue;
                }
                codes.extend(ask(&worker.channel, path, message.clone()).await);
                codes.extend(ask(&itself, path, message).await);
            }
        }
    }
    // Some got as far as a method's own checks, and some through them.
    for code in
        [Code::Unauthenticated, Code::PermissionDenied, Code::InvalidArgument, Code::NotFound, Code::Ok]
    {
        assert!(codes.contains(&i32::from(code)), "nothing ended with {code:?}: {codes:?}");
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0, "something panicked");
    assert_eq!(manager.state().borrow().cluster(), cluster);
    // It still does its work.
    worker.session().await.next().await.unwrap();
    let mut control = v1::control_client::ControlClient::new(itself);
    let request = v1::CreateNetworkRequest { name: "after".into(), ..Default::default() };
    control.create_network(request).await.unwrap();
    manager.shutdown().await;
}
