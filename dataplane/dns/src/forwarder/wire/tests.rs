use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};
use proptest::prelude::*;

use super::*;

const PLAIN: u16 = 512;

/// A question for `name`, without EDNS.
pub(in crate::forwarder) fn asked(name: &str, qtype: u16) -> Asked {
    Asked::read(&query(name, RecordType::from(qtype), None)).unwrap()
}

fn query(name: &str, qtype: RecordType, edns: Option<Edns>) -> Vec<u8> {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), qtype));
    message.edns = edns;
    message.to_vec().unwrap()
}

fn edns(dnssec: bool) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(dnssec);
    edns
}

/// A response to it under id 7, with records of the question's name: type, TTL, data; then an SOA record of these two
/// numbers, TTL and minimum, in the authority section.
pub(in crate::forwarder) fn response(
    asked: &Asked,
    answers: &[(u16, u32, &[u8])],
    soa: &[(u32, u32)],
    code: u8,
) -> Vec<u8> {
    let mut bytes = vec![0, 7, 0x81, 0x80 | code, 0, 1, 0, answers.len() as u8, 0, soa.len() as u8, 0, 0];
    bytes.extend(&asked.question);
    let mut record = |kind: u16, ttl: u32, data: &[u8]| {
        bytes.extend([0xc0, 12]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(ttl.to_be_bytes());
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
    };
    answers.iter().for_each(|(kind, ttl, data)| record(*kind, *ttl, data));
    for (ttl, minimum) in soa {
        let data = [&[0, 0][..], &[0; 16], &minimum.to_be_bytes()].concat();
        record(SOA, *ttl, &data);
    }
    bytes
}

fn read(asked: &Asked, answers: &[(u16, u32, &[u8])], soa: &[(u32, u32)], code: u8) -> Answer {
    Answer::read(asked, response(asked, answers, soa, code)).unwrap()
}

const A: (u16, u32, &[u8]) = (1, 60, &[192, 0, 2, 1]);
const CNAME: (u16, u32, &[u8]) = (5, 20, &[1, b'x', 0]);

#[test]
fn what_goes_out_is_the_question_and_nothing_of_the_clients() {
    let mut told = edns(true);
    told.options_mut().insert(rdata::opt::EdnsOption::Unknown(10, vec![1; 8]));
    let mut bytes = query("wEb.Example", RecordType::A, Some(told));
    bytes[3] |= AD | CD;
    let asked = Asked::read(&bytes).unwrap();
    let out = Message::from_vec(&asked.query(99, true)).unwrap();
    assert_eq!((out.metadata.id, out.metadata.recursion_desired), (99, true));
    assert!(out.metadata.authentic_data && out.metadata.checking_disabled);
    assert!(out.queries[0].name.eq_case(&Name::from_ascii("wEb.Example.").unwrap()));
    let edns = out.edns.unwrap();
    assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (OUR_UDP, true));
    assert!(edns.options().as_ref().is_empty(), "a cookie is between client and server");
    assert!(Message::from_vec(&asked.query(99, false)).unwrap().edns.is_none());
    let plain = Asked::read(&query("a", RecordType::A, None)).unwrap();
    assert!(Message::from_vec(&plain.query(1, true)).unwrap().edns.is_none());
}

#[test]
fn equal_questions_have_equal_keys_and_others_do_not() {
    let key = |bytes: Vec<u8>| Asked::read(&bytes).unwrap().key();
    let base = key(query("web.example", RecordType::A, None));
    assert_eq!(base, key(query("WEB.example", RecordType::A, None)));
    let flag = |at: usize, bit: u8| {
        let mut bytes = query("web.example", RecordType::A, None);
        bytes[at] ^= bit;
        key(bytes)
    };
    let others = [
        key(query("web2.example", RecordType::A, None)),
        key(query("web.example", RecordType::AAAA, None)),
        key(query("web.example", RecordType::A, Some(edns(false)))),
        key(query("web.example", RecordType::A, Some(edns(true)))),
        flag(2, RD),
        flag(3, AD),
        flag(3, CD),
    ];
    for (at, other) in others.iter().enumerate() {
        assert!(*other != base && !others[..at].contains(other), "{at}");
    }
}

#[test]
fn only_responses_to_the_question_count() {
    let asked = asked("wEb.cc", 1);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = response(&asked, &[], &[], 0);
        change(&mut bytes);
        asked.is_answered_by(7, &bytes)
    };
    assert!(changed(&|_| ()));
    assert!(changed(&|b| b[14] = b'e'), "case");
    assert!(!changed(&|b| b[2] &= !QR), "a query");
    assert!(!changed(&|b| b[0] = 9), "another id");
    assert!(!changed(&|b| b[13] = b'x'), "another name");
    assert!(!changed(&|b| b.truncate(20)), "cut");
    let bare = |code: u8| {
        move |b: &mut Vec<u8>| {
            b.truncate(12);
            (b[3], b[5]) = (code, 0);
        }
    };
    assert!(changed(&bare(1)));
    assert!(!changed(&bare(0)));
}

#[test]
fn lifetimes() {
    let (a, mx) = (asked("a.example", 1), asked("a.example", 15));
    let soa = |ttl, minimum| [(ttl, minimum)];
    for (what, answer, lifetime, negative) in [
        ("the least of all", read(&a, &[A, (1, 30, &[192, 0, 2, 2])], &[], 0), Some(30), false),
        ("an alias too", read(&a, &[CNAME, A], &[], 0), Some(20), false),
        ("zero", read(&a, &[A, (1, 0, &[192, 0, 2, 2])], &[], 0), None, false),
        ("half of all numbers are zero", read(&a, &[(1, 1 << 31, &[192, 0, 2, 2])], &[], 0), None, false),
        ("no such name", read(&a, &[], &soa(900, 300), 3), Some(300), true),
        ("no such type", read(&mx, &[], &soa(60, 300), 0), Some(60), true),
        ("an alias of what has no such type", read(&mx, &[CNAME], &soa(600, 300), 0), Some(20), true),
        ("nothing, and no word for how long", read(&mx, &[], &[], 0), None, true),
        ("an alias, and no word for how long", read(&mx, &[CNAME], &[], 0), None, true),
        ("no such name, and no word for how long", read(&a, &[], &[], 3), None, true),
        ("a failure", read(&a, &[], &[], SERVFAIL), Some(1), true),
        ("refused", read(&a, &[], &soa(60, 60), REFUSED), None, true),
    ] {
        assert_eq!((answer.lifetime(), answer.is_negative()), (lifetime, negative), "{what}");
    }
    let mut cut = response(&a, &[A], &[], 0);
    cut[2] |= TC;
    let cut = Answer::read(&a, cut).unwrap();
    assert!(cut.is_cut() && cut.lifetime().is_none());
}

#[test]
fn a_client_gets_its_id_its_spelling_and_what_is_left_of_the_ttls() {
    let mut first = response(&asked("a.example", 1), &[A, CNAME], &[(100, 50)], 0);
    first[2] |= AA;
    let answer = Answer::read(&asked("a.example", 1), first).unwrap();
    let client = asked("A.eXample", 1);
    let fresh = Message::from_vec(&client.response(&answer, 0, 512)).unwrap();
    assert!(fresh.metadata.authoritative && fresh.metadata.id == 0x1234);
    let old = Message::from_vec(&client.response(&answer, 15, 512)).unwrap();
    assert!(!old.metadata.authoritative, "it is not the authority that speaks");
    let ttls: Vec<u32> = old.answers.iter().chain(&old.authorities).map(|r| r.ttl).collect();
    assert_eq!(ttls, [45, 5, 85]);
    assert!(old.queries[0].name.eq_case(&Name::from_ascii("A.eXample.").unwrap()));
    assert_eq!(old.answers[0].data, RData::A(rdata::A([192, 0, 2, 1].into())));
}

#[test]
fn edns_is_between_neighbours() {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    let name = Name::from_ascii("a.example.").unwrap();
    message.add_query(Query::query(name.clone(), RecordType::A));
    message.metadata.response_code = ResponseCode::NXDomain;
    let data = RData::A(rdata::A([192, 0, 2, 9].into()));
    message.authorities.push(Record::from_rdata(name, 60, data));
    let mut told = edns(true);
    told.set_max_payload(999);
    told.options_mut().insert(rdata::opt::EdnsOption::Unknown(10, vec![1; 8]));
    told.options_mut().insert(rdata::opt::EdnsOption::Unknown(EXTENDED_ERROR, vec![0, 6, b'x']));
    message.set_edns(told);
    let bytes = message.to_vec().unwrap();

    let with = Asked::read(&query("a.example", RecordType::A, Some(edns(true)))).unwrap();
    let answer = Answer::read(&with, bytes.clone()).unwrap();
    let got = Message::from_vec(&with.response(&answer, 0, 512)).unwrap();
    let edns = got.edns.unwrap();
    assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (OUR_UDP, true));
    let options = edns.options().as_ref();
    assert_eq!(options.len(), 1, "the error's reason alone: {options:?}");
    assert_eq!(got.authorities.len(), 1);
    // A client without EDNS is sent none, even where the server did.
    let without = asked("a.example", 1);
    let answer = Answer::read(&without, bytes).unwrap();
    assert!(Message::from_vec(&without.response(&answer, 0, 512)).unwrap().edns.is_none());
    // One with EDNS is sent some, even where the server did not.
    let answer = read(&with, &[A], &[], 0);
    assert!(Message::from_vec(&with.response(&answer, 0, 512)).unwrap().edns.is_some());
}

#[test]
fn records_behind_edns_stay_where_they_are() {
    let with = Asked::read(&query("a.example", RecordType::A, Some(edns(false)))).unwrap();
    let mut bytes = response(&with, &[A], &[], 0);
    add_opt(&mut bytes, 0, false, &[]);
    bytes.extend([1, b'y', 0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4]);
    bytes[11] = 2;
    let answer = Answer::read(&with, bytes.clone()).unwrap();
    let got = with.response(&answer, 0, 4096);
    assert_eq!(got[12..], bytes[12..]);
}

#[test]
fn what_is_too_long_is_cut_to_the_question() {
    let many: Vec<_> = (0..60).map(|_| A).collect();
    for client in
        [asked("a.example", 1), Asked::read(&query("a.example", RecordType::A, Some(edns(true)))).unwrap()]
    {
        let answer = read(&client, &many, &[], 0);
        let whole = client.response(&answer, 0, 4096);
        assert!(whole.len() > PLAIN.into());
        let cut = client.response(&answer, 0, PLAIN.into());
        let message = Message::from_vec(&cut).unwrap();
        assert!(message.metadata.truncation && message.answers.is_empty() && cut.len() <= PLAIN.into());
        assert_eq!(message.edns.is_some(), client.has_edns());
        assert_eq!(message.queries.len(), 1);
    }
}

#[test]
fn hostile_and_broken_messages_are_none() {
    let asked = asked("a.example", 1);
    let good = response(&asked, &[A, CNAME], &[(1, 1)], 0);
    for end in 0..good.len() {
        assert!(Answer::read(&asked, good[..end].to_vec()).is_none(), "cut at {end}");
    }
    let broken = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        Answer::read(&asked, bytes).is_none()
    };
    assert!(broken(&|b| b[6] = 0xff), "65,000 answers");
    assert!(broken(&|b| b.push(0)), "something behind");
    assert!(broken(&|b| b[12] = 0x80), "a label of a kind that there is not");
    let mut query = query("a.example", RecordType::A, None);
    query.splice(12..23, [0xc0, 12]);
    assert!(Asked::read(&query).is_none(), "a name that is itself");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        query in prop::collection::vec(any::<u8>(), 0..80),
        at in 0usize..120, to: u8, cut in 0usize..60, with_edns: bool, age: u32, limit in 512usize..2000,
    ) {
        let _ = Asked::read(&query);
        let asked = Asked::read(&super::tests::query(
            "a.example", RecordType::A, with_edns.then(|| edns(true)),
        )).unwrap();
        let mut bytes = response(&asked, &[A, CNAME], &[(5, 5)], 3);
        if with_edns {
            add_opt(&mut bytes, 1, true, &[0, 15, 0, 2, 0, 6]);
            bytes[11] = 1;
        }
        let at = at % bytes.len();
        bytes[at] = to;
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        let _ = asked.is_answered_by(7, &bytes);
        if let Some(answer) = Answer::read(&asked, bytes) {
            let response = asked.response(&answer, age, limit);
            prop_assert!(response.len() <= limit);
            prop_assert_eq!(&response[..2], &[0x12, 0x34]);
        }
    }
}
