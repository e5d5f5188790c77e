//! Traces of packets, for people.

use mesh_agent::{Agent, TraceError, TraceFate, TraceFrom, TraceProtocol, TraceSpec, one_line};
use mesh_api::v1;
use tonic::Status;

/// Follows a packet.
pub async fn trace(agent: &Agent, request: v1::TraceRequest) -> Result<v1::TraceResponse, Status> {
    let traced = agent.trace(&spec(request)?).await.map_err(|error| refused(&error))?;
    let step = |step: mesh_agent::TraceStep| v1::TraceStep {
        node: step.node,
        place: step.place,
        found: step.found,
        verdict: step.verdict,
    };
    let back = traced.back.map(|back| v1::TraceBack {
        steps: back.steps.into_iter().map(step).collect(),
        fate: fate(back.end.fate).to_owned(),
        text: back.end.text,
        reason: back.end.reason.unwrap_or_default(),
    });
    Ok(v1::TraceResponse {
        steps: traced.steps.into_iter().map(step).collect(),
        fate: fate(traced.end.fate).to_owned(),
        text: traced.end.text,
        reason: traced.end.reason.unwrap_or_default(),
        back,
    })
}

fn fate(fate: TraceFate) -> &'static str {
    match fate {
        TraceFate::Delivered => "delivered",
        TraceFate::Dropped => "dropped",
        TraceFate::Left => "left",
        TraceFate::Unknown => "unknown",
    }
}

fn spec(request: v1::TraceRequest) -> Result<TraceSpec, Status> {
    let v1::TraceRequest { from, node, outside, to, port, protocol, ipv6 } = request;
    let from = match outside {
        false => TraceFrom::Task(from),
        true => {
            let address =
                from.parse().map_err(|_| Status::invalid_argument(format!("{from:?} is no address")))?;
            TraceFrom::Outside(address, node)
        }
    };
    let known = TraceProtocol::ALL.into_iter().find(|known| known.as_str() == protocol);
    let protocol = known.ok_or_else(|| Status::invalid_argument("only tcp, udp and icmp can be traced"))?;
    let port = u16::try_from(port).ok().filter(|port| (*port == 0) == (protocol == TraceProtocol::Icmp));
    let port =
        port.ok_or_else(|| Status::invalid_argument("the port is not between 1 and 65535; icmp has none"))?;
    Ok(TraceSpec { from, to, port, protocol, ipv6 })
}

fn refused(error: &TraceError) -> Status {
    let text = one_line(error);
    match error {
        TraceError::Task(_) | TraceError::Lookup(_) | TraceError::Here(_) | TraceError::NoAddress { .. } => {
            Status::not_found(text)
        }
        TraceError::Family(_) | TraceError::Name(_) => Status::invalid_argument(text),
        TraceError::DataPath(_) | TraceError::Node { .. } => Status::failed_precondition(text),
    }
}
