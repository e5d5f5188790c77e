use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom},
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tracing_subscriber::layer::SubscriberExt;

use super::*;

/// A journald of the test's own.
struct Journald {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Journald {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("socket")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { socket, folder }
    }

    fn journal(&self) -> Arc<Journal> {
        let journal = Journal::open(&self.folder.path().join("socket")).unwrap();
        assert_eq!(self.socket.recv(&mut [0]).unwrap(), 0, "it is asked whether it is there");
        Arc::new(journal)
    }

    /// The fields of the next message, and whether it came as a file.
    fn next(&self) -> (BTreeMap<String, String>, bool) {
        let mut buffer = vec![0; 1 << 20];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [io::IoSliceMut::new(&mut buffer)];
        let length = recvmsg(&self.socket, &mut parts, &mut with, RecvFlags::empty()).unwrap().bytes;
        let mut files = with.drain().filter_map(|with| match with {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        match files.next() {
            Some(file) => {
                let mut bytes = Vec::new();
                // The sender has written to its end; journald reads from the beginning.
                let mut file = File::from(file);
                file.seek(SeekFrom::Start(0)).unwrap();
                file.read_to_end(&mut bytes).unwrap();
                (fields(&bytes), true)
            }
            None => (fields(&buffer[..length]), false),
        }
    }
}

/// Reads a message as journald does.
fn fields(mut message: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while !message.is_empty() {
        let end = message.iter().position(|b| *b == b'\n').unwrap();
        let line = &message[..end];
        let (name, value, rest) = match line.iter().position(|b| *b == b'=') {
            Some(at) => (&line[..at], &line[at + 1..], &message[end + 1..]),
            None => {
                let (length, rest) = message[end + 1..].split_at(8);
                let (value, rest) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
                (line, value, &rest[1..])
            }
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert!(fields.insert(text(name), text(value)).is_none(), "{} is there twice", text(name));
        message = rest;
    }
    fields
}

#[test]
fn an_event_is_a_message_with_its_fields() {
    let journald = Journald::new();
    let journal = journald.journal();
    journal.of_node("n-1");
    let subscriber = tracing_subscriber::registry().with(layer(journal.clone()));
    tracing::subscriber::with_default(subscriber, || {
        tracing::warn!(network = "prod", task = %"web-1", service = "web", vni = 4097, "refused:\nno room");
        tracing::info!(
            priority = 0,
            message_id = "x",
            syslog_facility = 3,
            "fields that have journald's names"
        );
    });
    let (first, as_file) = journald.next();
    let said = |name: &str| first.get(name).map(String::as_str);
    assert!(!as_file);
    assert_eq!(said("MESSAGE"), Some("refused:\nno room"));
    let known = ["PRIORITY", "SYSLOG_IDENTIFIER", "MESH_NODE", "NETWORK", "TASK", "SERVICE", "VNI"].map(said);
    assert_eq!(known, ["4", "meshd", "n-1", "prod", "web-1", "web", "4097"].map(Some));
    assert!(said("CODE_FILE").is_some_and(|file| file.ends_with("tests.rs")));
    let (second, _) = journald.next();
    assert_eq!((second["PRIORITY"].as_str(), second["F_PRIORITY"].as_str()), ("6", "0"));
    assert!(second.contains_key("F_MESSAGE_ID") && second.contains_key("F_SYSLOG_FACILITY"), "{second:?}");
    assert_eq!(journal.lost(), 0);
}

#[test]
fn a_message_too_long_for_a_datagram_is_a_file() {
    let journald = Journald::new();
    let text = "x".repeat(4 << 20);
    let subscriber = tracing_subscriber::registry().with(layer(journald.journal()));
    tracing::subscriber::with_default(subscriber, || tracing::error!(text, "long"));
    let (message, as_file) = journald.next();
    assert!(as_file);
    assert_eq!((message["MESSAGE"].as_str(), message["TEXT"].len()), ("long", 4 << 20));
}

#[test]
fn a_journald_that_does_not_read_costs_messages_and_is_told_so() {
    let journald = Journald::new();
    let journal = journald.journal();
    let mut sent = 0;
    // It takes some, as many as the kernel lets wait; after the first that had no room nobody waits.
    while journal.lost() < 1_000 {
        sent += 1;
        assert!(sent < 1_000_000, "the kernel keeps all of them");
        journal.send(b"MESSAGE=one\n".to_vec());
    }
    for _ in 0..sent - 1_000 {
        assert_eq!(journald.next().0["MESSAGE"], "one");
    }
    journal.send(b"MESSAGE=again\n".to_vec());
    let (message, _) = journald.next();
    assert_eq!((message["MESSAGE"].as_str(), message["MESH_LOST"].as_str()), ("again", "1000"));
    drop(journald);
    journal.send(b"MESSAGE=nobody\n".to_vec());
    assert_eq!(journal.lost(), 1_001);
}

#[test]
fn names_are_as_journald_wants_them() {
    for (ours, theirs) in [
        ("task", "TASK"),
        ("_private", "PRIVATE"),
        ("data.path", "DATA_PATH"),
        ("1st", "F_1ST"),
        ("code_line", "F_CODE_LINE"),
        ("", "F_"),
    ] {
        assert_eq!(name(ours), theirs);
    }
    assert_eq!(name(&"n".repeat(100)).len(), 64);
}
