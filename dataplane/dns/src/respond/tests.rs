use std::sync::Arc;

use hickory_proto::{op::Query, rr::rdata::opt::EdnsOption};
use mesh_types::Protocol;
use proptest::prelude::*;

use super::*;
use crate::{NetworkNames, ServiceNames, ServicePort};

fn view(addresses: usize) -> TaskView {
    let mut names = NetworkNames::new("prod".parse().unwrap());
    let list = (0..addresses).map(|n| IpAddr::from([10, 10, (n >> 8) as u8, n as u8])).collect();
    names.forward.insert("web".to_owned(), list);
    names.reverse.insert("10.10.3.2".parse().unwrap(), "web.prod".to_owned());
    let port = ServicePort { protocol: Protocol::Tcp, published: 80, target: 8080 };
    let tasks = (0..addresses).map(|n| (format!("web{n}"), 1)).collect();
    let service = ServiceNames { name: "web".to_owned(), ports: vec![port], tasks };
    for n in 0..addresses {
        names.forward.insert(format!("web{n}"), vec![IpAddr::from([10, 10, (n >> 8) as u8, n as u8])].into());
    }
    names.services.insert("web".to_owned(), Arc::new(service));
    TaskView { networks: vec![Arc::new(names)], forward: true, ..TaskView::default() }
}

fn query(name: &str, qtype: RecordType) -> Message {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), qtype));
    message
}

fn reply(view: &TaskView, query: &Message, transport: Transport) -> Message {
    match respond(view, &query.to_vec().unwrap(), transport, |_, _| 0) {
        Outcome::Reply { bytes, .. } => Message::from_vec(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_has_all_a_client_looks_at() {
    let asked = query("WeB.prod.", RecordType::A);
    let got = reply(&view(1), &asked, Transport::Udp);
    assert_eq!((got.metadata.id, got.metadata.message_type), (77, MessageType::Response));
    assert!(got.metadata.recursion_desired && got.metadata.recursion_available);
    // The question comes back as it was written (0x20 mixing).
    assert!(got.queries[0].name.eq_case(&asked.queries[0].name));
    assert_eq!(got.answers[0].ttl, TTL);
    assert_eq!(got.answers[0].data, RData::A(A([10, 10, 0, 0].into())));
    assert!(got.edns.is_none());
}

#[test]
fn addresses_take_turns() {
    let asked = query("web.", RecordType::A).to_vec().unwrap();
    for turn in 0..6 {
        let Outcome::Reply { bytes, .. } = respond(&view(3), &asked, Transport::Udp, |_, _| turn) else {
            panic!()
        };
        let got = Message::from_vec(&bytes).unwrap();
        assert_eq!(got.answers[0].data, RData::A(A([10, 10, 0, (turn % 3) as u8].into())));
        assert_eq!(got.answers.len(), 3);
    }
}

#[test]
fn edns_is_answered_in_kind() {
    let mut asked = query("web.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(true);
    asked.set_edns(edns.clone());
    let got = reply(&view(1), &asked, Transport::Udp).edns.unwrap();
    assert!(got.flags().dnssec_ok && got.version() == 0);
    assert_eq!(got.max_payload(), 1232);
    edns.set_version(1);
    asked.set_edns(edns);
    let got = reply(&view(1), &asked, Transport::Udp);
    // BADVERS and BADSIG share their number.
    assert_eq!(u16::from(got.metadata.response_code), 16);
    assert!(got.answers.is_empty());
}

#[test]
fn what_does_not_fit_is_truncated() {
    let mut asked = query("web.", RecordType::A);
    let plain = reply(&view(100), &asked, Transport::Udp);
    assert!(plain.metadata.truncation && plain.to_vec().unwrap().len() <= 512);
    assert!(plain.answers.len() > 20);
    assert_eq!(reply(&view(100), &asked, Transport::Tcp).answers.len(), 100);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    let whole = reply(&view(100), &asked, Transport::Udp);
    assert!(!whole.metadata.truncation && whole.answers.len() == 100);
    // More than even TCP takes.
    asked.set_edns(Edns::new());
    let most = reply(&view(5000), &asked, Transport::Tcp);
    assert!(most.metadata.truncation && most.answers.len() > 2000 && most.edns.is_some());
}

#[test]
fn services_come_with_the_addresses_of_their_places() {
    let mut asked = query("_http._tcp.tasks.web.", RecordType::SRV);
    let got = reply(&view(3), &asked, Transport::Udp);
    assert_eq!((got.answers.len(), got.additionals.len()), (3, 3));
    let target = Name::from_ascii("web0.prod.").unwrap();
    assert_eq!(got.answers[0].data, RData::SRV(SRV::new(0, 1, 8080, target.clone())));
    assert_eq!(
        (&got.additionals[0].name, &got.additionals[0].data),
        (&target, &RData::A(A([10, 10, 0, 0].into())))
    );
    // With little room the addresses go first, which the client can ask for; no word of that is due.
    let got = reply(&view(12), &asked, Transport::Udp);
    assert_eq!((got.answers.len(), got.additionals.len(), got.metadata.truncation), (12, 0, false));
    let got = reply(&view(50), &asked, Transport::Udp);
    assert!(got.metadata.truncation && got.answers.len() < 50);
    asked.set_edns(Edns::new());
    let got = reply(&view(50), &asked, Transport::Tcp);
    assert_eq!((got.answers.len(), got.additionals.len()), (50, 50));
    assert!(got.edns.is_some());
}

#[test]
fn other_classes_operations_and_counts_are_refused() {
    let mut asked = query("version.bind.", RecordType::TXT);
    asked.queries[0].query_class = DNSClass::CH;
    assert_eq!(reply(&view(1), &asked, Transport::Udp).metadata.response_code, ResponseCode::Refused);
    let mut asked = query("web.", RecordType::A);
    asked.metadata.op_code = OpCode::Status;
    assert_eq!(reply(&view(1), &asked, Transport::Udp).metadata.response_code, ResponseCode::NotImp);
    let mut asked = query("web.", RecordType::A);
    asked.add_query(asked.queries[0].clone());
    assert_eq!(reply(&view(1), &asked, Transport::Udp).metadata.response_code, ResponseCode::FormErr);
    asked.queries.clear();
    assert_eq!(reply(&view(1), &asked, Transport::Udp).metadata.response_code, ResponseCode::FormErr);
}

#[test]
fn a_ptr_and_a_forward() {
    let got = reply(&view(1), &query("2.3.10.10.in-addr.arpa.", RecordType::PTR), Transport::Udp);
    assert_eq!(got.answers[0].data, RData::PTR(PTR(Name::from_ascii("web.prod.").unwrap())));
    let asked = query("example.com.", RecordType::A);
    let Outcome::Forward { limit, failure } =
        respond(&view(1), &asked.to_vec().unwrap(), Transport::Udp, |_, _| 0)
    else {
        panic!()
    };
    assert_eq!(limit, 512);
    let failure = Message::from_vec(&failure).unwrap();
    assert_eq!(failure.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(failure.queries, asked.queries);
}

#[test]
fn noise_gets_silence_or_a_form_error() {
    let mut response = query("web.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    for silent in [&b""[..], b"x", &[0; 11], &response.to_vec().unwrap()] {
        assert_eq!(respond(&view(1), silent, Transport::Udp, |_, _| 0), Outcome::Malformed(None));
    }
    let mut cut = query("web.", RecordType::A).to_vec().unwrap();
    cut.truncate(cut.len() - 2);
    let Outcome::Malformed(Some(reply)) = respond(&view(1), &cut, Transport::Udp, |_, _| 0) else { panic!() };
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!((reply.metadata.id, reply.metadata.response_code), (77, ResponseCode::FormErr));
    assert_eq!(reply.metadata.message_type, MessageType::Response);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = respond(&view(3), &bytes, Transport::Udp, |_, _| 1);
    }

    #[test]
    fn no_changed_byte_makes_it_panic_or_outgrow_its_limit(
        at in 0usize..64, to: u8, count in 0usize..200, payload in 0u16..5000, cut in 0usize..8,
    ) {
        let mut asked = query("web.", RecordType::A);
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        edns.options_mut().insert(EdnsOption::Unknown(10, vec![1; 8]));
        asked.set_edns(edns);
        let mut bytes = asked.to_vec().unwrap();
        let at = at % bytes.len();
        bytes[at] = to;
        bytes.truncate(bytes.len() - cut);
        let outcome = respond(&view(count), &bytes, Transport::Udp, |_, _| 1);
        if let Outcome::Reply { bytes: reply, .. } = outcome {
            let limit = Message::from_vec(&bytes).unwrap().edns.map_or(512, |e| usize::from(e.max_payload()).max(512));
            prop_assert!(reply.len() <= limit);
            prop_assert!(Message::from_vec(&reply).is_ok());
        }
    }
}
