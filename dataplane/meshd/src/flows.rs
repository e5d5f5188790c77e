//! Lists of flows, for people.

use std::{ops::ControlFlow, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, stream};
use mesh_agent::{Agent, FilterError, FlowFilter, FlowQuery, FlowsError, NamedFlow, one_line};
use mesh_api::v1;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tonic::Status;
use tracing::debug;

/// The answer to `Local.ListFlows`.
pub type FlowLists = Pin<Box<dyn Stream<Item = Result<v1::ListFlowsResponse, Status>> + Send>>;
type Answers = mpsc::Sender<Result<v1::ListFlowsResponse, Status>>;

/// Lists that are read at a time.
const AT_ONCE: usize = 4;
/// Flows in a message, and messages that wait to be read.
const CHUNK: usize = 256;
const WAITING: usize = 4;
/// How long a reader may read nothing.
const READ: Duration = Duration::from_secs(10);

/// Bounds what is asked for at a time.
pub struct Lists(Arc<Semaphore>);

impl Default for Lists {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Lists {
    /// Begins a list.
    pub async fn list(&self, agent: &Agent, request: v1::ListFlowsRequest) -> Result<FlowLists, Status> {
        let slot = self.0.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "{AT_ONCE} lists of flows are being read on this node already; try again when one has ended"
            ))
        })?;
        let query =
            agent.flows(&filter(request.filter.unwrap_or_default())?).await.map_err(|e| refused(&e))?;
        let (answers, waiting) = mpsc::channel(WAITING);
        let (limit, handle) = (request.limit, Handle::current());
        tokio::task::spawn_blocking(move || answer(&query, limit, &answers, &handle, slot));
        Ok(Box::pin(stream::unfold(waiting, async |mut waiting| Some((waiting.recv().await?, waiting)))))
    }
}

/// Tells the flows and then the sums, as long as somebody reads.
fn answer(query: &FlowQuery, limit: u64, answers: &Answers, handle: &Handle, slot: OwnedSemaphorePermit) {
    let send = |answer| {
        let sent = handle.block_on(timeout(READ, answers.send(answer)));
        match sent {
            Ok(Ok(())) => ControlFlow::Continue(()),
            // Whoever asked has gone, or reads nothing.
            Ok(Err(_)) | Err(_) => ControlFlow::Break(()),
        }
    };
    let (mut flows, mut left) = (Vec::new(), if limit == 0 { u64::MAX } else { limit });
    let walked = query.run(|flow| {
        if left == 0 {
            return ControlFlow::Continue(());
        }
        left -= 1;
        flows.push(message(flow));
        if flows.len() < CHUNK {
            return ControlFlow::Continue(());
        }
        send(Ok(v1::ListFlowsResponse { flows: std::mem::take(&mut flows), sums: None }))
    });
    let last = match walked {
        Ok(walked) => {
            let sums = v1::FlowSums { seen: walked.seen, matched: walked.matched };
            Ok(v1::ListFlowsResponse { flows, sums: Some(sums) })
        }
        Err(error) => Err(Status::internal(format!("cannot read the flows: {}", one_line(&error)))),
    };
    if send(last).is_break() {
        debug!("a list of flows was not read to its end");
    }
    drop(slot);
}

/// What a message asks for.
pub fn filter(filter: v1::FlowFilter) -> Result<FlowFilter, Status> {
    let v1::FlowFilter { services, networks, clients, tasks, protocols, states, ports } = filter;
    let port = |port: u32| {
        let fits = u16::try_from(port).ok().filter(|port| *port != 0);
        fits.ok_or_else(|| Status::invalid_argument(format!("port {port} is not between 1 and 65535")))
    };
    let ports = ports.into_iter().map(port).collect::<Result<_, _>>()?;
    Ok(FlowFilter { services, networks, clients, tasks, protocols, states, ports })
}

fn refused(error: &FlowsError) -> Status {
    match error {
        FlowsError::Filter(error) => filter_refused(error),
        FlowsError::DataPath(_) => Status::failed_precondition(one_line(error)),
    }
}

/// What is wrong with a filter, in words.
pub fn filter_refused(error: &FilterError) -> Status {
    let text = one_line(error);
    match error {
        FilterError::Lookup(_) | FilterError::Task(_) => Status::not_found(text),
        FilterError::Client(_) | FilterError::Word { .. } => Status::invalid_argument(text),
    }
}

/// A flow as clients are told of it.
pub fn message(flow: NamedFlow) -> v1::Flow {
    let NamedFlow { entry, client, service, network, task, task_address, node, entrance } = flow;
    v1::Flow {
        protocol: match entry.protocol {
            1 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            58 => "icmpv6".to_owned(),
            132 => "sctp".to_owned(),
            other => other.to_string(),
        },
        client_address: entry.client.ip().to_string(),
        client_port: entry.client.port().into(),
        client: client.unwrap_or_default(),
        address: entry.front.ip().to_string(),
        port: entry.front.port().into(),
        service: service.unwrap_or_default(),
        network: network.unwrap_or_default(),
        task: task.unwrap_or_default(),
        task_address: task_address.map(|at| at.ip().to_string()).unwrap_or_default(),
        task_port: task_address.map_or(0, |at| at.port().into()),
        node: node.unwrap_or_default(),
        entrance: entrance.unwrap_or_default(),
        state: entry.state.as_str().to_owned(),
        idle_millis: u64::try_from(entry.idle.as_millis()).unwrap_or(u64::MAX),
    }
}
