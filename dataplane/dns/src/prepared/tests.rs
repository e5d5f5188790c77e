use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, Query},
    rr::{Name, RecordType},
};
use proptest::{prelude::*, sample::select};

use super::*;
use crate::{NetworkNames, respond::respond};

/// Network `prod` with names of one, of several and of both families' addresses.
fn view(names: &[(&str, &[&str])]) -> Arc<TaskView> {
    let mut prod = NetworkNames::new("prod".parse().unwrap());
    for (name, addresses) in names {
        let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        for address in &addresses {
            prod.reverse.insert(*address, format!("{name}.prod"));
        }
        prod.forward.insert((*name).to_owned(), addresses.into());
    }
    Arc::new(TaskView { networks: vec![Arc::new(prod)], forward: true, ..TaskView::default() })
}

fn names() -> Arc<TaskView> {
    view(&[
        ("one", &["10.0.0.1"]),
        ("three", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        ("mixed", &["10.0.0.7", "10.0.0.8", "fd00::7", "fd00::8"]),
        ("empty", &[]),
    ])
}

fn query(id: u16, name: &str, qtype: RecordType, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), qtype));
    change(&mut message);
    message.to_vec().unwrap()
}

fn slow(view: &TaskView, query: &[u8], transport: Transport, turn: usize) -> (Outcome, bool) {
    let mut turned = false;
    let outcome = respond(view, query, transport, |_, _| {
        turned = true;
        turn
    });
    (outcome, turned)
}

fn given(prepared: &mut Prepared, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let mut out = b"before".to_vec();
    let given = prepared.give(query, transport, &mut out);
    assert!(out.starts_with(b"before") && (given || out.len() == 6));
    given.then(|| out.split_off(6))
}

fn learn(prepared: &mut Prepared, view: &TaskView, query: &[u8], transport: Transport) {
    let (outcome, turned) = slow(view, query, transport, 0);
    prepared.keep(query, transport, &outcome, turned);
}

fn spelled(name: &str, upper: u64) -> String {
    let flip = |(at, c): (usize, char)| if upper >> (at % 64) & 1 == 1 { c.to_ascii_uppercase() } else { c };
    name.chars().enumerate().map(flip).collect()
}

proptest! {
    /// The whole claim: after any queries, a prepared reply is what `respond` would say, turn by turn.
    #[test]
    fn a_prepared_reply_is_the_one_that_would_be_made(queries in prop::collection::vec((
        any::<u16>(),
        select(vec!["one", "three", "mixed", "empty", "one.prod", "nope.prod", "1.0.0.10.in-addr.arpa", "elsewhere.example"]),
        select(vec![RecordType::A, RecordType::AAAA, RecordType::ANY, RecordType::PTR, RecordType::SRV, RecordType::TXT]),
        any::<u64>(), any::<[bool; 5]>(), select(vec![512u16, 1232, 4096]),
    ), 1..60)) {
        let view = names();
        let mut prepared = Prepared::default();
        prepared.follow(&view);
        // Whose turn it is, by what is asked.
        let mut turns = HashMap::<Vec<u8>, usize>::new();
        let mut hits = 0;
        for (id, name, qtype, upper, [tcp, edns, dnssec, unchecked, recursive], payload) in queries {
            let transport = if tcp { Transport::Tcp } else { Transport::Udp };
            let bytes = query(id, &spelled(name, upper), qtype, |message| {
                message.metadata.checking_disabled = unchecked;
                message.metadata.recursion_desired = recursive;
                message.edns = edns.then(|| {
                    let mut edns = Edns::new();
                    edns.set_max_payload(payload).set_dnssec_ok(dnssec);
                    edns
                });
            });
            let mut id = Vec::new();
            prop_assert!(key(&bytes, transport, &mut id).is_some(), "a plain query");
            let turn = turns.entry(id).or_default();
            let (expected, turned) = slow(&view, &bytes, transport, *turn);
            *turn += 1;
            match given(&mut prepared, &bytes, transport) {
                None => prepared.keep(&bytes, transport, &expected, turned),
                Some(reply) => {
                    hits += 1;
                    let Outcome::Reply { bytes: expected, .. } = expected else {
                        return Err(TestCaseError::fail(format!("{name} was given, but should be {expected:?}")));
                    };
                    prop_assert_eq!(reply, expected, "{} {}", name, qtype);
                }
            }
        }
        prop_assert!(prepared.bytes <= MOST_BYTES);
        prop_assume!(hits > 0 || turns.len() > 1);
    }

    /// What is not a plain query has no key, and nothing makes it panic.
    #[test]
    fn noise_is_not_given_anything(noise in prop::collection::vec(any::<u8>(), 0..80), at in 0usize..60, byte: u8) {
        let view = names();
        let mut prepared = Prepared::default();
        prepared.follow(&view);
        let mut asked = query(7, "three", RecordType::A, |_| ());
        learn(&mut prepared, &view, &asked, Transport::Udp);
        prop_assert!(given(&mut prepared, &noise, Transport::Udp).is_none());
        // One octet of a query changed: the same as `respond` says, or nothing.
        if let Some(place) = asked.get_mut(at) {
            *place = byte;
        }
        if let Some(reply) = given(&mut prepared, &asked, Transport::Udp) {
            let (Outcome::Reply { bytes, .. }, _) = slow(&view, &asked, Transport::Udp, 1) else {
                return Err(TestCaseError::fail("given, but no reply"));
            };
            prop_assert_eq!(reply, bytes);
        }
    }
}

#[test]
fn addresses_go_on_taking_turns() {
    let view = names();
    let mut prepared = Prepared::default();
    prepared.follow(&view);
    let asked = query(7, "three", RecordType::A, |_| ());
    learn(&mut prepared, &view, &asked, Transport::Udp);
    let mut first = Vec::new();
    for _ in 0..6 {
        let reply = Message::from_vec(&given(&mut prepared, &asked, Transport::Udp).unwrap()).unwrap();
        first.push(reply.answers[0].data.to_string());
    }
    assert_eq!(first, ["10.0.0.2", "10.0.0.3", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]);
}

#[test]
fn a_new_view_and_another_transport_know_nothing() {
    let view = names();
    let mut prepared = Prepared::default();
    prepared.follow(&view);
    let asked = query(7, "one", RecordType::A, |_| ());
    learn(&mut prepared, &view, &asked, Transport::Udp);
    assert!(given(&mut prepared, &asked, Transport::Tcp).is_none());
    prepared.follow(&view);
    assert!(given(&mut prepared, &asked, Transport::Udp).is_some());
    // Equal, but another one: who makes a new one has changed something.
    prepared.follow(&names());
    assert!(given(&mut prepared, &asked, Transport::Udp).is_none());
    assert_eq!((prepared.bytes, prepared.replies.len()), (0, 0));
}

#[test]
fn what_cannot_be_given_again_is_not_kept() {
    let view = names();
    let mut prepared = Prepared::default();
    prepared.follow(&view);
    let cookie = |message: &mut Message| {
        let mut edns = Edns::new();
        edns.options_mut().insert(hickory_proto::rr::rdata::opt::EdnsOption::Unknown(10, vec![1; 8]));
        message.edns = Some(edns);
    };
    let version = |message: &mut Message| {
        let mut edns = Edns::new();
        edns.set_version(1);
        message.edns = Some(edns);
    };
    let asked = [
        query(1, "nope.prod", RecordType::A, |_| ()),
        query(2, "elsewhere.example", RecordType::A, |_| ()),
        query(3, "one", RecordType::A, cookie),
        query(4, "one", RecordType::A, version),
        query(5, "one", RecordType::A, |m| {
            let again = m.queries[0].clone();
            m.add_query(again);
        }),
    ];
    for asked in &asked {
        learn(&mut prepared, &view, asked, Transport::Udp);
        assert!(given(&mut prepared, asked, Transport::Udp).is_none(), "{asked:?}");
    }
    assert_eq!(prepared.replies.len(), 0);
}

#[test]
fn many_questions_take_bounded_room() {
    let view = names();
    let mut prepared = Prepared::default();
    prepared.follow(&view);
    for qtype in 0..5000 {
        learn(
            &mut prepared,
            &view,
            &query(1, "one", RecordType::Unknown(qtype + 1000), |_| ()),
            Transport::Udp,
        );
        assert!(prepared.bytes <= MOST_BYTES);
    }
    let counted: usize =
        prepared.replies.iter().map(|(key, reply)| key.len() + reply.bytes.len() + OVERHEAD).sum();
    assert_eq!(counted, prepared.bytes);
    assert!(!prepared.replies.is_empty());
}
