//! From the bytes of a query to the bytes of its response: pure.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, PTR, SRV},
    },
};

use crate::{
    Answer, TTL, TaskView,
    resolve::{Place, Text, outside, resolve},
};

/// What a UDP message may measure when the client says nothing (RFC 1035, section 4.2.1).
const PLAIN_UDP: usize = 512;
/// What we say that we take: below every MTU (dnsflagday.net/2020).
const OUR_UDP: u16 = 1232;
/// What a message over TCP may measure.
const TCP_LIMIT: usize = u16::MAX as usize;
const HEADER: usize = 12;

/// How the query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// What is to be done with a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Send this.
    Reply { bytes: Vec<u8>, code: ResponseCode, truncated: bool },
    /// Ask the node's name servers; `limit` is what the client takes in bytes.
    Forward { limit: usize, failure: Vec<u8> },
    /// Not a query at all.
    Malformed(Option<Vec<u8>>),
}

/// Decides and encodes. `turn` is asked for once, when there is more than one address to put in turn.
pub(crate) fn respond(
    view: &TaskView,
    query: &[u8],
    transport: Transport,
    turn: impl FnOnce(&Name, RecordType) -> usize,
) -> Outcome {
    let Some(header) = query.get(..HEADER) else { return Outcome::Malformed(None) };
    // A response must never be answered: two servers could talk for ever.
    if header.get(2).is_none_or(|flags| flags & 0x80 != 0) {
        return Outcome::Malformed(None);
    }
    let Ok(query) = Message::from_vec(query) else {
        return Outcome::Malformed(Some(bare_error(header, ResponseCode::FormErr)));
    };
    let limit = match transport {
        Transport::Tcp => TCP_LIMIT,
        Transport::Udp => {
            query.edns.as_ref().map_or(PLAIN_UDP, |e| usize::from(e.max_payload()).max(PLAIN_UDP))
        }
    };
    let mut response = response_to(&query);
    let question = match query.queries.as_slice() {
        _ if query.metadata.op_code != OpCode::Query => {
            return finish(response, ResponseCode::NotImp, limit, header);
        }
        [question] => question,
        _ => return finish(response, ResponseCode::FormErr, limit, header),
    };
    if query.edns.as_ref().is_some_and(|e| e.version() > 0) {
        return finish(response, ResponseCode::BADVERS, limit, header);
    }
    if !matches!(question.query_class, DNSClass::IN | DNSClass::ANY) {
        return finish(response, ResponseCode::Refused, limit, header);
    }
    let text = Text::of_name(&question.name);
    let (answer, _) = match &text {
        Some(text) => resolve(view, text.as_str(), question.query_type),
        // No name of ours; it has labels, or a dot in one.
        None => outside(view, ".", question.query_type),
    };
    let code = match answer {
        Answer::Forward => {
            response.metadata.authoritative = false;
            return match finish(response, ResponseCode::ServFail, limit, header) {
                Outcome::Reply { bytes, .. } => Outcome::Forward { limit, failure: bytes },
                other => other,
            };
        }
        Answer::NxDomain => ResponseCode::NXDomain,
        Answer::NoData => ResponseCode::NoError,
        Answer::Ptr(target) => match name_of(target) {
            // What we cannot write as a name is a name that we do not have.
            None => ResponseCode::NXDomain,
            Some(target) => {
                let data = RData::PTR(PTR(target));
                response.answers = vec![Record::from_rdata(question.name.clone(), TTL, data)];
                ResponseCode::NoError
            }
        },
        Answer::Addresses(addresses) => {
            let record = |address: &IpAddr| Record::from_rdata(question.name.clone(), TTL, data_of(*address));
            response.answers = addresses.iter().map(record).collect();
            ResponseCode::NoError
        }
        Answer::Services(places) => {
            add_places(&mut response, &question.name, &places);
            ResponseCode::NoError
        }
    };
    if response.answers.len() > 1 {
        let by = turn(&question.name, question.query_type) % response.answers.len();
        response.answers.rotate_left(by);
    }
    finish(response, code, limit, header)
}

/// SRV records, and beside them the addresses of what they name (RFC 2782).
fn add_places(response: &mut Message, asked: &Name, places: &[Place<'_>]) {
    for place in places {
        let Some(target) = name_of(&place.target) else { continue };
        let address = |a: &IpAddr| Record::from_rdata(target.clone(), TTL, data_of(*a));
        let beside: Vec<_> = place.addresses.iter().map(address).collect();
        // Two ports of one task.
        if !response.additionals.iter().any(|known| known.name == target) {
            response.additionals.extend(beside);
        }
        let data = RData::SRV(SRV::new(0, place.weight, place.port, target));
        response.answers.push(Record::from_rdata(asked.clone(), TTL, data));
    }
}

fn name_of(text: &str) -> Option<Name> {
    Name::from_labels(text.split('.').map(str::as_bytes)).ok()
}

fn response_to(query: &Message) -> Message {
    let mut response = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    response.metadata = Metadata::response_from_request(&query.metadata);
    response.metadata.authoritative = true;
    response.metadata.recursion_available = true;
    response.queries.clone_from(&query.queries);
    response.edns = query.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(OUR_UDP).set_version(0).set_dnssec_ok(asked.flags().dnssec_ok);
        edns
    });
    response
}

fn finish(mut response: Message, code: ResponseCode, limit: usize, header: &[u8]) -> Outcome {
    response.metadata.response_code = code;
    let failed = || Outcome::Malformed(Some(bare_error(header, ResponseCode::ServFail)));
    loop {
        let length = match response.to_vec() {
            Ok(bytes) if bytes.len() <= limit && is_whole(&bytes, &response) => {
                return Outcome::Reply { bytes, code, truncated: response.metadata.truncation };
            }
            // Above 64 KiB the length is not told; twice the limit is as good a guess as any.
            Ok(bytes) if bytes.len() <= limit => limit.saturating_mul(2),
            Ok(bytes) => bytes.len(),
            Err(_) => return failed(),
        };
        // What stands beside answers may be left out without a word (RFC 2181, section 9).
        if !response.additionals.is_empty() {
            response.additionals.clear();
            continue;
        }
        if response.answers.is_empty() {
            return failed();
        }
        response.metadata.truncation = true;
        let fit = response.answers.len().saturating_mul(limit) / length.max(1);
        response.answers.truncate(fit.min(response.answers.len() - 1));
    }
}

/// Whether the encoder wrote every record: it leaves out what does not fit into 64 KiB, EDNS too.
fn is_whole(bytes: &[u8], response: &Message) -> bool {
    let count = |at: usize| match bytes.get(at..at + 2) {
        Some([high, low]) => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    let beside = response.additionals.len() + usize::from(response.edns.is_some());
    count(6) == response.answers.len() && count(10) == beside
}

fn data_of(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

/// A response of nothing but a header: id, operation and RD of the query.
fn bare_error(header: &[u8], code: ResponseCode) -> Vec<u8> {
    let mut reply = vec![0; HEADER];
    if let [id0, id1, flags, ..] = header
        && let [to0, to1, to_flags, to_code, ..] = reply.as_mut_slice()
    {
        (*to0, *to1) = (*id0, *id1);
        *to_flags = 0x80 | (flags & 0x79);
        *to_code = 0x80 | code.low();
    }
    reply
}

#[cfg(test)]
mod tests;
