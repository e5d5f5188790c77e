//! Files that Wireshark, tshark and tcpdump read: PCAP Next Generation (draft-ietf-opsawg-pcapng).

use std::collections::BTreeMap;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// Options.
const END: u16 = 0;
const COMMENT: u16 = 1;
const INTERFACE_NAME: u16 = 2;
const APPLICATION: u16 = 4;
const RESOLUTION: u16 = 9;
/// Nanoseconds.
const NANO: u8 = 9;
const ETHERNET: u16 = 1;

/// A packet, from its Ethernet header on.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Nanoseconds since 1970-01-01 UTC.
    pub unix_nanos: u64,
    /// Where on its way it is: an interface of the file for each place.
    pub place: &'a str,
    pub comment: &'a str,
    /// Bytes that it has.
    pub length: u32,
    /// The first of them.
    pub bytes: &'a [u8],
}

/// Makes the blocks of one file. Each is whole: a file that ends after any of them is read.
#[derive(Debug)]
pub struct Blocks {
    snaplen: u32,
    places: BTreeMap<String, u32>,
}

impl Blocks {
    /// Of packets that are cut after so many bytes.
    pub fn new(snaplen: u32) -> Self {
        Self { snaplen, places: BTreeMap::new() }
    }

    /// The beginning of the file.
    pub fn head(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend(0x1a2b_3c4d_u32.to_le_bytes());
        body.extend(1u16.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        // Its length is not known.
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, APPLICATION, concat!("meshctl ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(&mut body, END, &[]);
        block(SECTION, &body)
    }

    /// The block of a packet, after that of its place if it is the first one there.
    pub fn packet(&mut self, packet: &Packet<'_>) -> Vec<u8> {
        let mut blocks = Vec::new();
        let next = self.places.len() as u32;
        let place = *self.places.entry(packet.place.to_owned()).or_insert_with(|| {
            blocks = interface(packet.place, self.snaplen);
            next
        });
        let mut body = Vec::new();
        let [high, low] = [packet.unix_nanos >> 32, packet.unix_nanos & 0xffff_ffff].map(|half| half as u32);
        for number in [place, high, low, packet.bytes.len() as u32, packet.length] {
            body.extend(number.to_le_bytes());
        }
        padded(&mut body, packet.bytes);
        if !packet.comment.is_empty() {
            option(&mut body, COMMENT, packet.comment.as_bytes());
            option(&mut body, END, &[]);
        }
        blocks.extend(block(PACKET, &body));
        blocks
    }
}

fn interface(name: &str, snaplen: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(ETHERNET.to_le_bytes());
    body.extend(0u16.to_le_bytes());
    body.extend(snaplen.to_le_bytes());
    option(&mut body, INTERFACE_NAME, name.as_bytes());
    option(&mut body, RESOLUTION, &[NANO]);
    option(&mut body, END, &[]);
    block(INTERFACE, &body)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    padded(body, value);
}

fn padded(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    // Kind and length before, the length once more behind.
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &length, body, &length].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kinds and bodies.
    fn read(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut blocks = Vec::new();
        while let Some((head, _)) = file.split_at_checked(8) {
            let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
            let (kind, length) = (number(&head[..4]), number(&head[4..]) as usize);
            assert_eq!(number(&file[length - 4..length]) as usize, length);
            assert_eq!(length % 4, 0);
            blocks.push((kind, file[8..length - 4].to_vec()));
            file = &file[length..];
        }
        assert!(file.is_empty());
        blocks
    }

    #[test]
    fn places_come_before_their_packets() {
        let mut blocks = Blocks::new(64);
        let packet =
            |place, bytes| Packet { unix_nanos: (7 << 32) + 5, place, comment: "to web", length: 99, bytes };
        let mut file = blocks.head();
        for (place, bytes) in [("sent", &b"abc"[..]), ("received", b"abcd"), ("sent", b"")] {
            file.extend(blocks.packet(&packet(place, bytes)));
        }
        let read = read(&file);
        let kinds: Vec<u32> = read.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION, INTERFACE, PACKET, INTERFACE, PACKET, PACKET]);
        let body = &read[2].1;
        let numbers: Vec<u32> =
            body[..20].chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(numbers, [0, 7, 5, 3, 99]);
        assert_eq!(&body[20..24], b"abc\0");
        assert_eq!(&body[24..], b"\x01\0\x06\0to web\0\0\0\0\0\0");
        assert_eq!(read[4].1[..4], 1u32.to_le_bytes());
        assert_eq!(read[5].1[..4], 0u32.to_le_bytes());
    }
}
