//! Hostile queries, made from real ones: what is answered, and with how much. A second of them with the other tests; for
//! minutes with `MESHD_FUZZ_SECONDS=600 cargo nextest run -p mesh-dns hostile`.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Edns, Message, Query},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::sync::watch;

use crate::{
    Forwarder, NetworkNames, TaskView,
    desk::{Desk, Left},
    respond::{Outcome, Transport, respond},
    stats::Counters,
};

const HEADER: usize = 12;
const TCP_LIMIT: usize = u16::MAX as usize;

fn view() -> Arc<TaskView> {
    let mut prod = NetworkNames::new("prod".parse().unwrap());
    let many =
        (0..=255u8).flat_map(|n| [IpAddr::from([10, 0, 0, n]), format!("fd00::{n:x}").parse().unwrap()]);
    prod.forward.insert("one".to_owned(), vec![IpAddr::from([10, 0, 0, 1])].into());
    prod.forward.insert("many".to_owned(), many.collect());
    prod.reverse.insert([10, 0, 0, 1].into(), "one.prod".to_owned());
    Arc::new(TaskView { networks: vec![Arc::new(prod)], forward: true, ..TaskView::default() })
}

/// Messages as resolvers send them, and responses, which nobody should.
fn seeds() -> Vec<Vec<u8>> {
    let names = ["one", "many", "one.prod", "nope.prod", "1.0.0.10.in-addr.arpa", "example.com", "."];
    let types = [RecordType::A, RecordType::AAAA, RecordType::ANY, RecordType::PTR, RecordType::SRV];
    let mut seeds = Vec::new();
    for name in names {
        for qtype in types {
            let mut message = Message::query();
            message.metadata.id = 0x1234;
            message.metadata.recursion_desired = true;
            message.add_query(Query::query(Name::from_ascii(name).unwrap(), qtype));
            seeds.push(message.to_vec().unwrap());
            let mut edns = Edns::new();
            edns.set_max_payload(4096).set_dnssec_ok(true);
            message.edns = Some(edns);
            seeds.push(message.to_vec().unwrap());
            let data = RData::A(A([192, 0, 2, 1].into()));
            message.add_answer(Record::from_rdata(Name::from_ascii(name).unwrap(), 60, data));
            seeds.push(message.to_vec().unwrap());
        }
    }
    seeds
}

/// One message changed a few times, in ways that parsers of others have stumbled over.
fn mutated(random: &mut StdRng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut message = seeds.choose(random).cloned().unwrap_or_default();
    for _ in 0..random.random_range(1..6) {
        let length = message.len();
        let at = random.random_range(0..length.max(1)).min(length);
        match random.random_range(0..9) {
            0 if length > 0 => message[at.min(length - 1)] = random.random(),
            1 if length > 0 => message[at.min(length - 1)] ^= 1 << random.random_range(0..8),
            2 => message.truncate(at),
            // A pointer: to itself, forward, into the header, or to what looks like a name.
            3 if at + 2 <= length => {
                let to = *[at, at + 2, 0, 3, HEADER, length, 0x3fff].choose(random).unwrap_or(&0) as u16;
                message[at..at + 2].copy_from_slice(&(0xc000 | to).to_be_bytes());
            }
            // Counts of sections.
            4 if length >= HEADER => {
                let count: u16 = *[0, 1, 2, 255, 256, u16::MAX].choose(random).unwrap_or(&0);
                let place = 4 + 2 * random.random_range(0..4);
                message[place..place + 2].copy_from_slice(&count.to_be_bytes());
            }
            5 => message.extend((0..random.random_range(0..40)).map(|_| random.random::<u8>())),
            // A part of another message, or the same part again.
            6 => {
                let other = seeds.choose(random).cloned().unwrap_or_default();
                let from = random.random_range(0..other.len().max(1)).min(other.len());
                message.splice(at..at, other[from..].iter().copied());
            }
            7 if length > HEADER => {
                let question = message[HEADER..].to_vec();
                let times = random.random_range(1..64);
                message[4..6].copy_from_slice(&(times as u16 + 1).to_be_bytes());
                (0..times).for_each(|_| message.extend(&question));
            }
            // Labels as long, or as many, as can be written.
            _ => {
                let label = *[1usize, 62, 63, 64, 127, 191, 255].choose(random).unwrap_or(&1);
                let labels = (0..random.random_range(1..130)).flat_map(|_| {
                    let mut bytes = vec![label as u8];
                    bytes.resize(label + 1, b'a');
                    bytes
                });
                let labels: Vec<u8> = labels.take(4000).collect();
                message.splice(at..at, labels);
            }
        }
        message.truncate(8000);
    }
    message
}

/// What must hold of the answer to any message whatever.
fn check(message: &[u8], reply: &[u8], left: &Left, transport: Transport) -> Result<(), String> {
    let is_response = message.get(2).is_none_or(|flags| flags & 0x80 != 0);
    if (message.len() < HEADER || is_response) && !(reply.is_empty() && matches!(left, Left::Malformed)) {
        return Err("answered what is no query".to_owned());
    }
    // What the sender says that it takes, by a reader that is not the server's own.
    let payload = Message::from_vec(message).ok().and_then(|m| m.edns).map_or(0, |edns| edns.max_payload());
    let most = if transport == Transport::Tcp { TCP_LIMIT } else { usize::from(payload).max(512) };
    let failure = if let Left::Forward { failure, .. } = left { failure.as_slice() } else { &[] };
    for said in [reply, failure].into_iter().filter(|said| !said.is_empty()) {
        if said.len() > most {
            return Err(format!("{} bytes to one who takes {most}", said.len()));
        }
        if said.get(..2) != message.get(..2) || said.get(2).is_none_or(|flags| flags & 0x80 == 0) {
            return Err("no response to this message".to_owned());
        }
        if let Err(error) = Message::from_vec(said) {
            return Err(format!("not a message: {error}"));
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn hostile_messages_are_borne() {
    let seconds = std::env::var("MESHD_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let seed = std::env::var("MESHD_FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    let mut random = StdRng::seed_from_u64(seed);
    let (view, seeds) = (view(), seeds());
    let (_keep, receiver) = watch::channel(Arc::clone(&view));
    let desk =
        Desk::new(receiver, Arc::new(Forwarder::to_servers([]).for_task()), Arc::new(Counters::default()));
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut count = 0u64;
    while count < 2000 || Instant::now() < until {
        count += 1;
        let message = mutated(&mut random, &seeds);
        let transport = if random.random() { Transport::Udp } else { Transport::Tcp };
        // Twice: the second time perhaps from what was prepared.
        for _ in 0..2 {
            let mut out = Vec::new();
            let left = desk.turn().answer(&message, transport, &mut out);
            let checked = check(&message, &out, &left, transport);
            assert!(checked.is_ok(), "{checked:?}: seed {seed}, {transport:?}, {}", hex(&message));
            let counted = matches!(respond(&view, &message, transport, |_, _| 0), Outcome::Reply { .. });
            let answered = matches!(left, Left::Nothing);
            assert_eq!(answered, counted, "prepared and made anew differ: seed {seed}, {}", hex(&message));
        }
    }
    println!("{count} messages, seed {seed}");
}

/// The most that a small query brings about: all addresses of a name, of both families.
#[test]
fn any_brings_no_more_than_the_asker_takes() {
    let view = view();
    for (payload, most) in [(None, 512), (Some(512), 512), (Some(1232), 1232), (Some(0), 512)] {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii("many").unwrap(), RecordType::ANY));
        message.edns = payload.map(|payload| {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            edns
        });
        let outcome = respond(&view, &message.to_vec().unwrap(), Transport::Udp, |_, _| 0);
        let Outcome::Reply { bytes, truncated, .. } = outcome else { panic!("{outcome:?}") };
        assert!(truncated && bytes.len() <= most && bytes.len() > most / 2, "{} of {most}", bytes.len());
    }
}
