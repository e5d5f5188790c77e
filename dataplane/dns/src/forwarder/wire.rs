//! Messages that are passed on, read and changed in their octets (RFC 1035, section 4.1; RFC 6891, section 6): pure.
//!
//! Records are not decoded: what is unknown here passes as it is.

use std::ops::Range;

pub(super) const HEADER: usize = 12;
/// What we say that we take: below every MTU (dnsflagday.net/2020).
const OUR_UDP: u16 = 1232;
const BARE_OPT: usize = 11;
const SOA: u16 = 6;
const OPT: u16 = 41;
const ANY: u16 = 255;
/// Extended DNS errors (RFC 8914): the one option that is told to the client as the server told it to us.
const EXTENDED_ERROR: u16 = 15;

pub(super) const SERVFAIL: u8 = 2;
pub(super) const REFUSED: u8 = 5;
const NXDOMAIN: u8 = 3;

/// Bits of a header's third and fourth octet.
const QR: u8 = 0x80;
const AA: u8 = 0x04;
const TC: u8 = 0x02;
const RD: u8 = 0x01;
const AD: u8 = 0x20;
const CD: u8 = 0x10;

/// A client's question, without what concerns the client alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    id: [u8; 2],
    /// Name, type and class as the client wrote them.
    question: Box<[u8]>,
    flags: Flags,
}

/// What besides the question an answer depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Flags {
    recursion: bool,
    authentic: bool,
    checking_disabled: bool,
    edns: bool,
    dnssec: bool,
}

/// What is asked, whoever asks: questions of one key have one answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// In lower case.
    question: Box<[u8]>,
    flags: Flags,
}

impl Key {
    /// What it takes in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        self.question.len() + size_of::<Self>()
    }
}

impl Asked {
    /// Reads a query of one question; `None` for anything else.
    pub(super) fn read(query: &[u8]) -> Option<Self> {
        let header = query.get(..HEADER)?;
        if header.get(2)? & QR != 0 || number(query, 4)? != 1 {
            return None;
        }
        let end = name_end(query, HEADER)? + 4;
        let question = query.get(HEADER..end)?;
        // A pointer could lead nowhere but to itself.
        let mut at = 0;
        while let Some(length) = question.get(at).filter(|length| **length != 0) {
            at += usize::from(*length) + 1;
        }
        if at + 5 != question.len() {
            return None;
        }
        let records = Records::read(query)?;
        let opt = records.opt.as_ref().map(|opt| number(query, opt.start + 7)).map(Option::unwrap_or_default);
        Some(Self {
            id: [*header.first()?, *header.get(1)?],
            question: question.into(),
            flags: Flags {
                recursion: header.get(2)? & RD != 0,
                authentic: header.get(3)? & AD != 0,
                checking_disabled: header.get(3)? & CD != 0,
                edns: opt.is_some(),
                dnssec: opt.is_some_and(|flags| flags & 0x8000 != 0),
            },
        })
    }

    pub(super) fn key(&self) -> Key {
        // Lengths of labels are below 64, where there are no letters; so are type and class, or it does no harm.
        Key { question: self.question.to_ascii_lowercase().into(), flags: self.flags }
    }

    /// Whether its answer may be kept for others: it asks for recursion.
    pub(super) fn may_be_kept(&self) -> bool {
        self.flags.recursion
    }

    /// The query to send on, under `id`: options of the client's, such as cookies, concern nobody but us (RFC 6891,
    /// section 6.1.1). Without EDNS for a server that does not know it.
    pub(super) fn query(&self, id: u16, with_edns: bool) -> Vec<u8> {
        let edns = with_edns && self.flags.edns;
        let mut query = Vec::with_capacity(HEADER + self.question.len() + BARE_OPT);
        query.extend(id.to_be_bytes());
        query.push(bit(self.flags.recursion, RD));
        query.push(bit(self.flags.authentic, AD) | bit(self.flags.checking_disabled, CD));
        query.extend([0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
        query.extend(&self.question);
        if edns {
            add_opt(&mut query, 0, self.flags.dnssec, &[]);
        }
        query
    }

    /// Whether the query carries EDNS.
    pub(super) fn has_edns(&self) -> bool {
        self.flags.edns
    }

    /// Whether `response` is one to this question under `id`: errors may leave the question out.
    pub(super) fn is_answered_by(&self, id: u16, response: &[u8]) -> bool {
        let Some([id0, id1, flags, code, ..]) = response.get(..HEADER) else { return false };
        if [*id0, *id1] != id.to_be_bytes() || flags & QR == 0 {
            return false;
        }
        let echoed = response.get(HEADER..HEADER + self.question.len());
        let same =
            number(response, 4) == Some(1) && echoed.is_some_and(|e| e.eq_ignore_ascii_case(&self.question));
        same || (number(response, 4) == Some(0) && code & 0x0f != 0)
    }

    /// `answer` for this client, `age` seconds after it came, in at most `limit` octets.
    pub(super) fn response(&self, answer: &Answer, age: u32, limit: usize) -> Vec<u8> {
        let mut response = Vec::with_capacity(answer.bytes.len() + BARE_OPT + answer.error.len());
        response.extend(&answer.bytes);
        self.sign(&mut response);
        for at in &answer.ttls {
            let Some(ttl) = response.get_mut(*at..at + 4) else { continue };
            let left = u32::from_be_bytes([ttl[0], ttl[1], ttl[2], ttl[3]]).saturating_sub(age);
            ttl.copy_from_slice(&left.to_be_bytes());
        }
        if age > 0
            && let Some(flags) = response.get_mut(2)
        {
            *flags &= !AA;
        }
        let end = response.len();
        self.end(&mut response, answer);
        if response.len() > limit {
            response.truncate(end.min(HEADER + self.question.len()));
            if let Some(counts) = response.get_mut(6..HEADER) {
                counts.fill(0);
            }
            if let Some(flags) = response.get_mut(2) {
                *flags |= TC;
            }
            self.end(&mut response, answer);
        }
        response
    }

    /// Makes it a response to this client: its id, and its spelling of the name.
    fn sign(&self, response: &mut [u8]) {
        if let Some(id) = response.get_mut(..2) {
            id.copy_from_slice(&self.id);
        }
        if let Some(question) = response.get_mut(HEADER..HEADER + self.question.len()) {
            question.copy_from_slice(&self.question);
        }
    }

    /// Adds EDNS, if the client has it and there is none.
    fn end(&self, response: &mut Vec<u8>, answer: &Answer) {
        if !self.flags.edns || answer.has_own_opt {
            return;
        }
        let Some(count) = number(response, 10).and_then(|count| count.checked_add(1)) else { return };
        if let Some(at) = response.get_mut(10..12) {
            at.copy_from_slice(&count.to_be_bytes());
        }
        add_opt(response, answer.extended_code, self.flags.dnssec, &answer.error);
    }
}

/// What a name server answered, for whoever asks the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The message without EDNS, unless that is not its end.
    bytes: Box<[u8]>,
    /// Where the TTLs are.
    ttls: Box<[usize]>,
    extended_code: u8,
    error: Box<[u8]>,
    has_own_opt: bool,
    /// For how many seconds it is right; none where it is nothing to keep.
    lifetime: Option<u32>,
    is_negative: bool,
}

impl Answer {
    /// Reads a response to `asked`; `None` when it is malformed.
    pub(super) fn read(asked: &Asked, mut bytes: Vec<u8>) -> Option<Self> {
        // The client's question stands in it again, also where an error left it out.
        if number(&bytes, 4)? == 0 {
            bytes.truncate(HEADER);
            bytes.extend(&asked.question);
            bytes.get_mut(4..HEADER)?.copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        }
        let records = Records::read(&bytes)?;
        let lifetime = records.lifetime(asked, &bytes);
        let is_negative = !records.has_found(asked, &bytes);
        let (mut extended_code, mut error, mut has_own_opt) = (0, Vec::new(), false);
        if let Some(opt) = records.opt {
            extended_code = *bytes.get(opt.start + 5)?;
            error = extended_error(bytes.get(opt.start + BARE_OPT..opt.end)?);
            // Names behind it may point behind it.
            has_own_opt = opt.end != bytes.len();
            if !has_own_opt {
                bytes.truncate(opt.start);
                let count = number(&bytes, 10)?.checked_sub(1)?;
                bytes.get_mut(10..12)?.copy_from_slice(&count.to_be_bytes());
            }
        }
        let ttls = records.ttls.into();
        Some(Self {
            bytes: bytes.into(),
            ttls,
            extended_code,
            error: error.into(),
            has_own_opt,
            lifetime,
            is_negative,
        })
    }

    pub(super) fn code(&self) -> u8 {
        code_of(&self.bytes)
    }

    /// Whether something was left out for want of room.
    pub(super) fn is_cut(&self) -> bool {
        self.bytes.get(2).is_some_and(|flags| flags & TC != 0)
    }

    /// For how many seconds it is right; none where it is nothing to keep.
    pub(super) fn lifetime(&self) -> Option<u32> {
        self.lifetime
    }

    /// Whether it says that there is nothing.
    pub(super) fn is_negative(&self) -> bool {
        self.is_negative
    }

    /// The message.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it takes in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() + self.ttls.len() * size_of::<usize>() + self.error.len() + size_of::<Self>()
    }
}

/// What is behind the question of a message.
#[derive(Debug, Default)]
struct Records {
    ttls: Vec<usize>,
    opt: Option<Range<usize>>,
    least_ttl: Option<u32>,
    /// From the SOA record beside a negative answer.
    negative_ttl: Option<u32>,
    /// The types of the answers.
    answers: Vec<u16>,
}

impl Records {
    fn read(message: &[u8]) -> Option<Self> {
        let mut records = Self::default();
        let mut at = HEADER;
        for _ in 0..number(message, 4)? {
            at = name_end(message, at)? + 4;
        }
        for (section, count_at) in [(1, 6), (2, 8), (3, 10)] {
            for _ in 0..number(message, count_at)? {
                at = records.take(message, at, section)?;
            }
        }
        // What is behind the last record is nobody's.
        (at == message.len()).then_some(records)
    }

    /// Reads one record and returns where the next one begins.
    fn take(&mut self, message: &[u8], start: usize, section: u8) -> Option<usize> {
        let fixed = name_end(message, start)?;
        let kind = number(message, fixed)?;
        let (high, low) = (number(message, fixed + 4)?, number(message, fixed + 6)?);
        let end = fixed + 10 + usize::from(number(message, fixed + 8)?);
        let data = message.get(fixed + 10..end)?;
        if kind == OPT {
            // One, of the root, in the additional section.
            if self.opt.is_some() || section != 3 || fixed != start + 1 {
                return None;
            }
            self.opt = Some(start..end);
            return Some(end);
        }
        let ttl = match u32::from(high) << 16 | u32::from(low) {
            // RFC 2181, section 8.
            ttl if ttl > i32::MAX as u32 => 0,
            ttl => ttl,
        };
        self.ttls.push(fixed + 4);
        self.least_ttl = Some(self.least_ttl.map_or(ttl, |least| least.min(ttl)));
        match (section, kind) {
            (1, kind) => self.answers.push(kind),
            (2, SOA) => {
                let minimum = data.len().checked_sub(4).and_then(|at| data.get(at..))?;
                let minimum = u32::from_be_bytes(minimum.try_into().ok()?);
                self.negative_ttl = Some(ttl.min(minimum));
            }
            _ => {}
        }
        Some(end)
    }

    /// Whether there is what was asked for.
    fn has_found(&self, asked: &Asked, message: &[u8]) -> bool {
        let qtype = asked.question.len().checked_sub(4).and_then(|at| number(&asked.question, at));
        let fits = |kind: &u16| qtype == Some(*kind) || qtype == Some(ANY);
        code_of(message) == 0 && self.answers.iter().any(fits)
    }

    /// RFC 2308, section 5; a failure for a second (RFC 9520, section 3.2).
    fn lifetime(&self, asked: &Asked, message: &[u8]) -> Option<u32> {
        let cut = message.get(2)? & TC != 0;
        let lifetime = match code_of(message) {
            _ if cut => return None,
            SERVFAIL => return Some(1),
            0 if self.has_found(asked, message) => self.least_ttl?,
            0 | NXDOMAIN => self.least_ttl?.min(self.negative_ttl?),
            _ => return None,
        };
        (lifetime > 0).then_some(lifetime)
    }
}

/// Of options those that tell why something failed.
fn extended_error(mut options: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    while let (Some(code), Some(length)) = (number(options, 0), number(options, 2)) {
        let Some((option, rest)) = options.split_at_checked(4 + usize::from(length)) else { break };
        if code == EXTENDED_ERROR {
            kept.extend(option);
        }
        options = rest;
    }
    kept
}

fn add_opt(message: &mut Vec<u8>, extended_code: u8, dnssec: bool, options: &[u8]) {
    message.push(0);
    message.extend(OPT.to_be_bytes());
    message.extend(OUR_UDP.to_be_bytes());
    message.extend([extended_code, 0, bit(dnssec, 0x80), 0]);
    message.extend(u16::try_from(options.len()).unwrap_or(0).to_be_bytes());
    message.extend(options);
}

fn bit(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

pub(super) fn code_of(message: &[u8]) -> u8 {
    message.get(3).map_or(SERVFAIL, |flags| flags & 0x0f)
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    let octets = message.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*octets))
}

/// Where the name that begins at `at` ends. Pointers are not followed: what they lead to is the client's affair.
fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            length @ 1..=63 => at += length + 1,
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
