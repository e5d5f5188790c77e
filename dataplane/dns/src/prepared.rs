//! Responses made once and given again: pure.
//!
//! A reply depends on the view and on the octets of the query and nothing else. So while the view stays, the same query
//! gets the same reply; only the id is the client's, the name in the question is as the client spells it, and addresses
//! go on taking turns.

use std::{collections::HashMap, sync::Arc};

use crate::{
    TaskView,
    respond::{Outcome, Transport},
};

/// What the replies of one task may take up, in bytes, roughly.
const MOST_BYTES: usize = 128 * 1024;
/// Longer ones are made anew each time.
const LONGEST_REPLY: usize = 4096;
/// What an entry costs besides key and reply.
const OVERHEAD: usize = 128;
const HEADER: usize = 12;
const LONGEST_NAME: usize = 255;
/// A root name, OPT, and ten octets without data (RFC 6891, section 6.1.2).
const BARE_OPT: usize = 11;
/// A name that is the question's.
const POINTER: [u8; 2] = [0xc0, HEADER as u8];

/// The replies of one task.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// What they were made from.
    view: Option<Arc<TaskView>>,
    replies: HashMap<Box<[u8]>, Reply>,
    bytes: usize,
    key: Vec<u8>,
}

#[derive(Debug)]
struct Reply {
    bytes: Box<[u8]>,
    /// The name as it was spelled, where the reply is right for no other spelling.
    spelling: Option<Box<[u8]>>,
    turns: Option<Turns>,
}

/// Answers of one size that take turns.
#[derive(Debug, Clone, Copy)]
struct Turns {
    count: usize,
    size: usize,
    next: usize,
}

impl Prepared {
    /// From now on replies are those that `view` gives.
    pub(crate) fn follow(&mut self, view: &Arc<TaskView>) {
        if self.view.as_ref().is_none_or(|known| !Arc::ptr_eq(known, view)) {
            self.replies.clear();
            self.bytes = 0;
            self.view = Some(Arc::clone(view));
        }
    }

    /// Appends the reply to `query` to `out`, if there is one.
    pub(crate) fn give(&mut self, query: &[u8], transport: Transport, out: &mut Vec<u8>) -> bool {
        let begin = out.len();
        let given = self.copy(query, transport, out).is_some();
        if !given {
            out.truncate(begin);
        }
        given
    }

    fn copy(&mut self, query: &[u8], transport: Transport, out: &mut Vec<u8>) -> Option<()> {
        let name = key(query, transport, &mut self.key)?;
        let reply = self.replies.get_mut(self.key.as_slice())?;
        let asked = query.get(HEADER..HEADER + name)?;
        if reply.spelling.as_deref().is_some_and(|spelling| spelling != asked) {
            return None;
        }
        let begin = out.len();
        out.extend_from_slice(&reply.bytes);
        let made = out.get_mut(begin..)?;
        made.get_mut(..2)?.copy_from_slice(query.get(..2)?);
        made.get_mut(HEADER..HEADER + name)?.copy_from_slice(asked);
        if let Some(turns) = &mut reply.turns {
            // The question's type and class follow its name.
            let first = HEADER + name + 4;
            made.get_mut(first..first + turns.count * turns.size)?.rotate_left(turns.next * turns.size);
            turns.next = (turns.next + 1) % turns.count;
        }
        Some(())
    }

    /// Remembers what `query` was replied, if that can be given again. `turned` says whether its answers take turns.
    pub(crate) fn keep(&mut self, query: &[u8], transport: Transport, outcome: &Outcome, turned: bool) {
        let Outcome::Reply { bytes, code, truncated: false } = outcome else { return };
        // Names that are not there are without number.
        if *code != hickory_proto::op::ResponseCode::NoError || bytes.len() > LONGEST_REPLY {
            return;
        }
        let Some(name) = key(query, transport, &mut self.key) else { return };
        let Some(shape) = shape(bytes, query, name) else { return };
        let turns = match (turned, shape) {
            (false, _) => None,
            (true, Shape::Alike { count, size }) => Some(Turns { count, size, next: 1 % count }),
            (true, Shape::Other) => return,
        };
        let spelling = match shape {
            Shape::Alike { .. } => None,
            Shape::Other => query.get(HEADER..HEADER + name).map(Box::from),
        };
        let size = self.key.len() + bytes.len() + OVERHEAD;
        if self.bytes + size > MOST_BYTES {
            self.replies.clear();
            self.bytes = 0;
        }
        let reply = Reply { bytes: bytes.as_slice().into(), spelling, turns };
        if let Some(before) = self.replies.insert(self.key.as_slice().into(), reply) {
            self.bytes -= self.key.len() + before.bytes.len() + OVERHEAD;
        }
        self.bytes += size;
    }
}

/// Writes to `key` what tells the query from those with other replies, and returns the length of the name in it; `None`
/// for a query that is not one plain question, with or without plain EDNS.
fn key(query: &[u8], transport: Transport, key: &mut Vec<u8>) -> Option<usize> {
    let header = query.get(..HEADER)?;
    // A query (QR and opcode 0) with one question, nothing else but perhaps one record: EDNS.
    let [_, _, flags, _, 0, 1, 0, 0, 0, 0, 0, more @ (0 | 1)] = header else { return None };
    if flags & 0xf8 != 0 {
        return None;
    }
    let rest = query.get(HEADER..)?;
    let mut name = 0;
    loop {
        match usize::from(*rest.get(name)?) {
            0 => break,
            length @ 1..=63 => name += length + 1,
            _ => return None,
        }
        if name >= LONGEST_NAME {
            return None;
        }
    }
    name += 1;
    let after = rest.get(name + 4..)?;
    let plain = match *more {
        0 => after.is_empty(),
        _ => after.len() == BARE_OPT && after.starts_with(&[0, 0, 41]) && after.ends_with(&[0, 0]),
    };
    if !plain {
        return None;
    }
    key.clear();
    key.extend_from_slice(query);
    // Lengths of labels are below 64, where there are no letters.
    key.get_mut(HEADER..HEADER + name)?.make_ascii_lowercase();
    key.get_mut(..2)?.copy_from_slice(&[0, u8::from(transport == Transport::Tcp)]);
    Some(name)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Addresses of the question's name, of one size, and at most EDNS after them: right for every spelling.
    Alike { count: usize, size: usize },
    /// Anything else.
    Other,
}

/// What there is after the question, which must be the query's own.
fn shape(reply: &[u8], query: &[u8], name: usize) -> Option<Shape> {
    let question = HEADER..HEADER + name + 4;
    if reply.get(question.clone())? != query.get(question.clone())? || reply.get(..2)? != query.get(..2)? {
        return None;
    }
    let count = |at: usize| reply.get(at..at + 2).map(|n| usize::from(n[0]) << 8 | usize::from(n[1]));
    let (answers, authority, additional) = (count(6)?, count(8)?, count(10)?);
    let rest = reply.get(question.end..)?;
    let opt = match (authority, additional) {
        (0, 0) => 0,
        (0, 1) => BARE_OPT,
        _ => return Some(Shape::Other),
    };
    let records = rest.get(..rest.len().checked_sub(opt)?)?;
    if opt > 0 && rest.get(records.len()..)?.get(..3)? != [0, 0, 41] {
        return Some(Shape::Other);
    }
    if answers == 0 {
        return Some(if records.is_empty() { Shape::Alike { count: 1, size: 0 } } else { Shape::Other });
    }
    let size = records.len() / answers;
    let alike = size * answers == records.len()
        && size > HEADER
        && records.chunks_exact(size).all(|record| {
            // Name, type, class, TTL, length, data.
            let length = size - 12;
            let address = matches!((record.get(2..4), length), (Some([0, 1]), 4) | (Some([0, 28]), 16));
            record.starts_with(&POINTER) && address && record.get(10..12) == Some(&[0, length as u8])
        });
    Some(if alike { Shape::Alike { count: answers, size } } else { Shape::Other })
}

#[cfg(test)]
mod tests;
