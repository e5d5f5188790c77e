//! Questions of people.

use std::net::SocketAddr;

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};

use super::{TaskForwarder, wire::Asked};

/// What name servers outside say, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// `NOERROR`, `NXDOMAIN` and so on.
    pub code: String,
    /// The answers, as in a zone file: `name TTL class type data`.
    pub records: Vec<String>,
    /// The server that said it; none when its answer was kept.
    pub by: Option<SocketAddr>,
    /// From where it was asked.
    pub place: &'static str,
}

impl TaskForwarder {
    /// Asks for `name`, as a query of the task would be; `None` when no server answers, or none is known.
    pub async fn look_up(&self, name: &Name, qtype: RecordType) -> Option<Outside> {
        let mut query = Message::new(0, MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(name.clone(), qtype));
        query.set_edns(Edns::new());
        let told = self.ask(&Asked::read(&query.to_vec().ok()?)?).await?;
        let message = Message::from_vec(told.answer.bytes()).ok()?;
        let left = |mut record: hickory_proto::rr::Record| {
            record.ttl = record.ttl.saturating_sub(told.age);
            record.to_string()
        };
        Some(Outside {
            code: rcode(told.answer.code()),
            records: message.answers.into_iter().map(left).collect(),
            by: told.by,
            place: self.upstream.place.name(),
        })
    }
}

/// RFC 6895, section 2.3.
fn rcode(code: u8) -> String {
    match code {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        other => return format!("RCODE{other}"),
    }
    .to_owned()
}
