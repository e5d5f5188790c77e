//! What the programs tell, for people who watch.

use std::{pin::Pin, time::Duration, time::SystemTime};

use futures::{Stream, stream};
use mesh_agent::{Agent, CaptureSpec, NamedEvent, Told, Watch, WatchError, WatchSpec, What, one_line};
use mesh_api::v1;
use tokio::{sync::mpsc, time::timeout};
use tonic::Status;
use tracing::debug;

use crate::flows::{filter, filter_refused, message};

/// The answer to `Local.Watch`.
pub type Events = Pin<Box<dyn Stream<Item = Result<v1::WatchEvent, Status>> + Send>>;

/// Events that wait to be sent.
const WAITING: usize = 256;
/// How long a reader may read nothing.
const READ: Duration = Duration::from_secs(10);

/// Watches until the reader goes.
pub async fn watch(agent: &Agent, request: v1::WatchRequest) -> Result<Events, Status> {
    let watch = agent.watch(&spec(request)?).await.map_err(|error| refused(&error))?;
    let (answers, waiting) = mpsc::channel(WAITING);
    tokio::spawn(hand_on(watch, answers));
    Ok(Box::pin(stream::unfold(waiting, async |mut waiting| Some((waiting.recv().await?, waiting)))))
}

async fn hand_on(mut watch: Watch, answers: mpsc::Sender<Result<v1::WatchEvent, Status>>) {
    loop {
        let told = tokio::select! {
            told = watch.next() => told,
            () = answers.closed() => return,
        };
        let Some(told) = told else {
            // Whoever reads may be gone as well.
            let _ = answers.try_send(Err(Status::unavailable("the daemon stops")));
            return;
        };
        let answer = event(told);
        let ends = answer.is_err();
        match timeout(READ, answers.send(answer)).await {
            Ok(Ok(())) if ends => return,
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => return debug!("a watcher reads nothing, and is cut off"),
        }
    }
}

fn spec(request: v1::WatchRequest) -> Result<WatchSpec, Status> {
    let v1::WatchRequest { filter: flows, new, closed, drops, capture } = request;
    let port = |port: u32| {
        let fits = u16::try_from(port).ok();
        fits.ok_or_else(|| Status::invalid_argument(format!("port {port} is not between 1 and 65535")))
    };
    let capture = capture.map(|capture| {
        let protocol = match capture.protocol.as_str() {
            "" => None,
            "tcp" => Some(6),
            "udp" => Some(17),
            "sctp" => Some(132),
            "icmp" => Some(1),
            "icmpv6" => Some(58),
            other => {
                return Err(Status::invalid_argument(format!(
                    "protocol {other:?} is not known; there are tcp, udp, sctp, icmp, icmpv6"
                )));
            }
        };
        let port = Some(port(capture.port)?).filter(|port| *port != 0);
        Ok(CaptureSpec { of: capture.of, port, protocol, snaplen: capture.snaplen })
    });
    Ok(WatchSpec {
        new,
        closed,
        drops,
        filter: filter(flows.unwrap_or_default())?,
        capture: capture.transpose()?,
    })
}

fn refused(error: &WatchError) -> Status {
    let text = one_line(error);
    match error {
        WatchError::Filter(error) => filter_refused(error),
        WatchError::Unknown(_) => Status::not_found(text),
        WatchError::Elsewhere { .. } => Status::failed_precondition(text),
        WatchError::Busy => Status::resource_exhausted(text),
    }
}

fn event(told: Told) -> Result<v1::WatchEvent, Status> {
    match told {
        Told::Begun => Ok(v1::WatchEvent { kind: "begun".to_owned(), ..Default::default() }),
        Told::Lost(lost) => Ok(v1::WatchEvent { kind: "lost".to_owned(), lost, ..Default::default() }),
        Told::Event(event) => Ok(happened(*event)),
        Told::Failed(error) => {
            Err(Status::failed_precondition(format!("the data path cannot be watched: {error}")))
        }
    }
}

fn happened(event: NamedEvent) -> v1::WatchEvent {
    let kind = match event.what {
        What::New => "new",
        What::Closed(_) | What::Forgotten(..) => "closed",
        What::Dropped(_) => "dropped",
        What::Packet(_) => "packet",
    };
    let since = event.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let flow = flow(&event);
    v1::WatchEvent {
        kind: kind.to_owned(),
        unix_nanos: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
        reason: event.reason().unwrap_or_default().to_owned(),
        program: event.program.map(|program| program.as_str().to_owned()).unwrap_or_default(),
        place: event.sight().map(|sight| sight.as_str().to_owned()).unwrap_or_default(),
        here: event.here.unwrap_or_default(),
        length: event.len,
        icmp_type: event.icmp_type.map(u32::from),
        flow: Some(flow),
        packet: event.bytes,
        lost: 0,
    }
}

/// A packet that is no IP packet has its EtherType for a protocol.
fn flow(event: &NamedEvent) -> v1::Flow {
    const ARP: u16 = 0x0806;
    const IP: [u16; 3] = [0, 0x0800, 0x86dd];
    let mut flow = message(event.flow.clone());
    match event.ethertype {
        ARP => flow.protocol = "arp".to_owned(),
        kind if IP.contains(&kind) => {}
        kind => flow.protocol = format!("ethertype {kind:#06x}"),
    }
    // What has none was all zeros.
    for address in [&mut flow.client_address, &mut flow.address] {
        if event.ethertype != 0 && address == "::" {
            address.clear();
        }
    }
    flow
}
