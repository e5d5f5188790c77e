//! journald's own protocol: one datagram for each message, a field for each of the event's fields
//! (systemd.io/JOURNAL_NATIVE_PROTOCOL).

use std::{
    fmt::{self, Write as _},
    fs::File,
    io::{self, IoSlice, Write as _},
    mem::MaybeUninit,
    os::{fd::AsFd, unix::net::UnixDatagram},
    path::Path,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// How long a message waits for journald; the ones after it do not wait until it takes messages again.
const PATIENCE: Duration = Duration::from_millis(200);
/// Names that mean something to journald; fields of ours that are called so get a prefix.
const TAKEN: [&str; 13] = [
    "MESSAGE",
    "MESSAGE_ID",
    "PRIORITY",
    "CODE_FILE",
    "CODE_LINE",
    "CODE_FUNC",
    "ERRNO",
    "TARGET",
    "MESH_NODE",
    "MESH_LOST",
    "UNIT",
    "USER_UNIT",
    "COREDUMP_UNIT",
];

/// The way to journald.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    /// Named with each message: a connection would end with the journald that it leads to.
    address: SocketAddrUnix,
    /// The field that says which node this is, ready to be sent.
    node: RwLock<Vec<u8>>,
    /// Whether it took the last message in time.
    in_time: AtomicBool,
    lost: AtomicU64,
}

impl Journal {
    /// To the socket at `path`, which must be there, and may go and come back then.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (socket, address) = (UnixDatagram::unbound()?, SocketAddrUnix::new(path)?);
        socket.set_write_timeout(Some(PATIENCE))?;
        let (node, in_time) = (RwLock::default(), AtomicBool::new(true));
        let journal = Self { socket, address, node, in_time, lost: AtomicU64::new(0) };
        // journald takes no notice of an empty one.
        journal.send_part(&[], &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?;
        Ok(journal)
    }

    /// From now on each message says that it is of this node.
    pub fn of_node(&self, node: &str) {
        let mut field = Vec::new();
        put(&mut field, "MESH_NODE", node);
        *self.node.write().unwrap_or_else(PoisonError::into_inner) = field;
    }

    /// How many messages were lost since the start: journald was too slow, or not there.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn send(&self, mut message: Vec<u8>) {
        message.extend_from_slice(&self.node.read().unwrap_or_else(PoisonError::into_inner));
        let lost = self.lost();
        if lost > 0 {
            put(&mut message, "MESH_LOST", &lost.to_string());
        }
        let flags = match self.in_time.load(Ordering::Relaxed) {
            true => SendFlags::NOSIGNAL,
            false => SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        };
        let sent = match self.send_part(&message, &mut SendAncillaryBuffer::default(), flags) {
            Err(Errno::MSGSIZE | Errno::NOBUFS) => self.send_file(&message, flags),
            sent => sent.map_err(io::Error::from),
        };
        self.in_time.store(sent.is_ok(), Ordering::Relaxed);
        if sent.is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What is too long for a datagram goes as a sealed file in memory.
    fn send_file(&self, message: &[u8], flags: SendFlags) -> io::Result<()> {
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        let file = memfd_create(c"meshd-log", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC)?;
        let mut file = File::from(file);
        file.write_all(message)?;
        fcntl_add_seals(&file, seals)?;
        let files = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = SendAncillaryBuffer::new(&mut space);
        with.push(SendAncillaryMessage::ScmRights(&files));
        Ok(self.send_part(&[], &mut with, flags)?)
    }

    fn send_part(
        &self,
        bytes: &[u8],
        with: &mut SendAncillaryBuffer<'_, '_, '_>,
        flags: SendFlags,
    ) -> rustix::io::Result<()> {
        sendmsg_addr(&self.socket, &self.address, &[IoSlice::new(bytes)], with, flags).map(drop)
    }
}

/// Sends what is logged to it.
pub fn layer<S: Subscriber>(journal: Arc<Journal>) -> impl Layer<S> {
    Events { journal }
}

struct Events {
    journal: Arc<Journal>,
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Vec::with_capacity(256);
        head(&mut message, event.metadata());
        event.record(&mut Fields(&mut message));
        self.journal.send(message);
    }
}

fn head(message: &mut Vec<u8>, metadata: &Metadata<'_>) {
    // As journalctl -p and syslog(3) count.
    let priority = match *metadata.level() {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    };
    put(message, "PRIORITY", priority);
    put(message, "SYSLOG_IDENTIFIER", "meshd");
    put(message, "TARGET", metadata.target());
    if let Some((file, line)) = metadata.file().zip(metadata.line()) {
        put(message, "CODE_FILE", file);
        put(message, "CODE_LINE", &line.to_string());
    }
}

/// Adds each field of an event.
struct Fields<'a>(&'a mut Vec<u8>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        put(self.0, &name(field.name()), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }
}

/// journald's form of a field's name: capitals, digits and `_`, a letter first, 64 at most.
fn name(of: &str) -> String {
    if of == "message" {
        return "MESSAGE".to_owned();
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let mut name: String = of.trim_start_matches('_').chars().map(plain).collect();
    let ours = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && !name.starts_with("SYSLOG_")
        && !name.starts_with("OBJECT_")
        && !TAKEN.contains(&name.as_str());
    if !ours {
        name.insert_str(0, "F_");
    }
    name.truncate(64);
    name
}

/// Adds a field; one of several lines says how long it is.
fn put(message: &mut Vec<u8>, name: &str, value: &str) {
    message.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        message.push(b'\n');
        message.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        message.push(b'=');
    }
    message.extend_from_slice(value.as_bytes());
    message.push(b'\n');
}

#[cfg(test)]
mod tests;
