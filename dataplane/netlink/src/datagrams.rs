//! Many datagrams with one system call (recvmmsg(2), sendmmsg(2)), over IPv4.

use std::{
    io,
    mem::{self, MaybeUninit},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

/// How many datagrams are received, or sent, with one call.
pub const BATCH: usize = 32;

/// Room for the datagrams of one call.
#[derive(Debug)]
pub struct Inbox {
    bytes: Box<[u8]>,
    longest: usize,
    received: Vec<Received>,
}

#[derive(Debug, Clone, Copy)]
struct Received {
    length: usize,
    cut: bool,
    from: SocketAddrV4,
}

/// A datagram in an [`Inbox`].
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// What it says; the beginning of it when it was `cut`.
    pub bytes: &'a [u8],
    /// Whether it was longer than the inbox takes.
    pub cut: bool,
    /// Who sent it.
    pub from: SocketAddrV4,
}

impl Inbox {
    /// Room for [`BATCH`] datagrams of up to `longest` bytes each.
    pub fn new(longest: usize) -> Self {
        Self {
            bytes: vec![0; longest * BATCH].into_boxed_slice(),
            longest,
            received: Vec::with_capacity(BATCH),
        }
    }

    /// Takes what has arrived at `socket`, without waiting; what the inbox held before is gone. Fewer than [`BATCH`] mean
    /// that no more was there.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has arrived.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.received.clear();
        let mut names = [const { empty_name() }; BATCH];
        let mut parts = [const { libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 } }; BATCH];
        let mut headers = [const { empty_header() }; BATCH];
        let rooms = self.bytes.chunks_exact_mut(self.longest.max(1));
        for (((header, part), name), room) in headers.iter_mut().zip(&mut parts).zip(&mut names).zip(rooms) {
            part.iov_base = room.as_mut_ptr().cast();
            part.iov_len = room.len();
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        }
        // SAFETY: each header points to one part and one name, each part to a room of its own; they all live until after
        // the call, and no more than BATCH headers are said to be there.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                // Signed with glibc, not so with musl.
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        self.received.extend(headers.iter().zip(&names).take(count).map(|(header, name)| Received {
            length: (header.msg_len as usize).min(self.longest),
            cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            from: SocketAddrV4::new(
                Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)),
                u16::from_be(name.sin_port),
            ),
        }));
        Ok(count)
    }

    /// What was received last, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        self.received.iter().zip(self.bytes.chunks_exact(self.longest.max(1))).map(|(received, room)| {
            Datagram {
                bytes: room.get(..received.length).unwrap_or_default(),
                cut: received.cut,
                from: received.from,
            }
        })
    }
}

/// Datagrams to be sent.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Where each ends, and where it goes.
    messages: Vec<(usize, SocketAddrV4)>,
}

impl Outbox {
    /// Adds what `write` appends, as one datagram to `to`. When it appends nothing, nothing is sent.
    pub fn push(&mut self, to: SocketAddrV4, write: impl FnOnce(&mut Vec<u8>)) {
        let begin = self.bytes.len();
        write(&mut self.bytes);
        // What was there before is not the writer's to take away.
        debug_assert!(self.bytes.len() >= begin, "an outbox's writer took bytes away");
        if self.bytes.len() > begin {
            self.messages.push((self.bytes.len(), to));
        }
    }

    /// Sends all, in order and without waiting, and is empty then. Tells how many could not be sent, and why the last.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> (usize, Option<io::Error>) {
        let (mut begin, mut failed, mut last) = (0, 0, None);
        let mut rest = self.messages.as_slice();
        while !rest.is_empty() {
            let count = match send_some(socket, &self.bytes, begin, rest) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The error is the first one's; the others may still go.
                Err(error) => {
                    failed += 1;
                    last = Some(error);
                    1
                }
            };
            let (done, left) = rest.split_at(count.clamp(1, rest.len()));
            begin = done.last().map_or(begin, |(end, _)| *end);
            rest = left;
        }
        self.messages.clear();
        self.bytes.clear();
        (failed, last)
    }
}

/// Sends as many of `messages` as one call takes; the first one's bytes begin at `begin`.
fn send_some(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    mut begin: usize,
    messages: &[(usize, SocketAddrV4)],
) -> io::Result<usize> {
    let mut names = [const { empty_name() }; BATCH];
    let mut parts = [const { libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 } }; BATCH];
    let mut headers = [const { empty_header() }; BATCH];
    let count = messages.len().min(BATCH);
    let rooms = headers.iter_mut().zip(&mut parts).zip(&mut names);
    for (((header, part), name), (end, to)) in rooms.zip(messages) {
        let message = bytes.get(begin..*end).unwrap_or_default();
        begin = *end;
        name.sin_family = libc::AF_INET as libc::sa_family_t;
        name.sin_port = to.port().to_be();
        name.sin_addr.s_addr = u32::from(*to.ip()).to_be();
        // The kernel only reads it.
        part.iov_base = message.as_ptr().cast_mut().cast();
        part.iov_len = message.len();
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_name = ptr::from_mut(name).cast();
        header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    }
    // SAFETY: the first `count` headers point to one part and one name each, and each part to bytes of `bytes`; they all
    // live until after the call, which reads them and writes only the headers' lengths.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count as libc::c_uint,
            (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

const fn empty_name() -> libc::sockaddr_in {
    libc::sockaddr_in { sin_family: 0, sin_port: 0, sin_addr: libc::in_addr { s_addr: 0 }, sin_zero: [0; 8] }
}

const fn empty_header() -> libc::mmsghdr {
    let header = MaybeUninit::<libc::mmsghdr>::zeroed();
    const { assert!(!mem::needs_drop::<libc::mmsghdr>()) };
    // SAFETY: a header of numbers and pointers, for which zero is a value: no name, no parts, no control data.
    unsafe { header.assume_init() }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd};

    use super::*;

    fn pair() -> (UdpSocket, UdpSocket, SocketAddrV4) {
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, b.local_addr().unwrap().port());
        (a, b, to)
    }

    #[test]
    fn what_is_sent_arrives_in_order_and_as_it_was() {
        let (a, b, to) = pair();
        let mut outbox = Outbox::default();
        let count = 2 * BATCH + 5;
        for number in 0..count {
            outbox.push(to, |bytes| bytes.extend(vec![number as u8; number + 1]));
            outbox.push(to, |_| ());
        }
        assert!(matches!(outbox.send(a.as_fd()), (0, None)));
        let mut inbox = Inbox::new(64);
        let mut seen = 0;
        while seen < count {
            inbox.receive(b.as_fd()).unwrap();
            for datagram in inbox.datagrams() {
                let whole = seen < 64;
                assert_eq!(datagram.bytes, vec![seen as u8; (seen + 1).min(64)]);
                assert_eq!(datagram.cut, !whole, "{seen}");
                assert_eq!(std::net::SocketAddr::V4(datagram.from), a.local_addr().unwrap());
                seen += 1;
            }
        }
        assert_eq!(seen, count);
        assert_eq!(inbox.receive(b.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(inbox.datagrams().count(), 0);
    }

    #[test]
    fn one_that_cannot_be_sent_does_not_keep_back_the_others() {
        let (a, b, to) = pair();
        let mut outbox = Outbox::default();
        outbox.push(to, |bytes| bytes.push(1));
        // Longer than UDP carries.
        outbox.push(to, |bytes| bytes.extend([0; 70_000]));
        outbox.push(to, |bytes| bytes.push(2));
        let (failed, error) = outbox.send(a.as_fd());
        assert_eq!((failed, error.unwrap().raw_os_error()), (1, Some(libc::EMSGSIZE)));
        let mut inbox = Inbox::new(8);
        assert_eq!(inbox.receive(b.as_fd()).unwrap(), 2);
        assert_eq!(inbox.datagrams().map(|d| d.bytes.to_vec()).collect::<Vec<_>>(), [[1], [2]]);
        // Emptied by sending, what failed too.
        assert!(matches!(outbox.send(a.as_fd()), (0, None)));
    }
}
