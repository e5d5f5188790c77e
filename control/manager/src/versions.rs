//! Managers of neighbouring versions: whoever leads brings them to the newest format that all read.

use std::{ops::RangeInclusive, time::Duration};

use mesh_api::v1;
use mesh_raft::RaftNode;
use mesh_store::{NEWEST_FORMAT, OLDEST_FORMAT};
use mesh_types::{Node, Role};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{debug, info};

use crate::{shared::Shared, watching::client_of};

/// How often the others are asked while they are not known to read the newest.
const PERIOD: Duration = Duration::from_secs(2);

/// The newest format that this daemon reads. In builds with debug assertions `MESHD_NEWEST_FORMAT` may say an older one, so
/// that tests have a daemon of the version before.
pub(crate) fn newest_format() -> u8 {
    #[cfg(debug_assertions)]
    if let Some(format) = std::env::var("MESHD_NEWEST_FORMAT").ok().and_then(|text| text.parse().ok()) {
        return NEWEST_FORMAT.min(format);
    }
    NEWEST_FORMAT
}

/// The formats of the managers' state that this daemon reads.
pub fn formats() -> RangeInclusive<u8> {
    OLDEST_FORMAT..=newest_format()
}

/// How long another manager may take to tell what a node reads.
const ANSWER: Duration = Duration::from_secs(1);

/// Refuses to make a manager of a meshd that could not follow the others: `who` ("this node") reads other formats than the one
/// agreed on. `again` says what to do once it is mended.
pub(crate) fn check(who: &str, reads: RangeInclusive<u32>, agreed: u8, again: &str) -> Result<(), Status> {
    if reads.contains(&agreed.into()) {
        return Ok(());
    }
    let (oldest, newest) = reads.into_inner();
    let (is, cure) = match newest < agreed.into() {
        true => ("an older", format!("bring it to the managers' version and {again}")),
        false => ("a newer", "bring the managers to its version first".to_owned()),
    };
    Err(Status::failed_precondition(format!(
        "{who} runs {is} meshd, which reads formats {oldest} to {newest} of the managers' state; the managers have agreed \
         on format {agreed}: {cure}"
    )))
}

/// The same for a node that is to be promoted. One that no manager knows this of may be: it
/// tells so itself when it cannot follow.
pub(crate) async fn check_promotion(shared: &Shared, node: &Node) -> Result<(), Status> {
    let Some(reads) = formats_of(shared, node).await else { return Ok(()) };
    let who = format!("node {}", node.name);
    check(&who, reads, shared.state().format(), "promote it again")
}

/// The formats that a node reads, as it told the manager that it is in session with.
async fn formats_of(shared: &Shared, node: &Node) -> Option<RangeInclusive<u32>> {
    if let Some(formats) = shared.reports.formats(node.id) {
        return Some(formats);
    }
    let state = shared.state();
    let (own, id) = (shared.place.node, node.id.to_string());
    for manager in state.nodes().filter(|other| other.role == Role::Manager && other.id != own) {
        let request = v1::ProgressRequest::default();
        let asked = async { client_of(shared, manager).await?.get_progress(request).await };
        let Ok(Ok(progress)) = timeout(ANSWER, asked).await else { continue };
        let said = progress.into_inner().nodes.into_iter().find(|told| told.node_id == id);
        if let Some(told) = said.filter(|told| told.newest_format > 0) {
            return Some(told.oldest_format..=told.newest_format);
        }
    }
    None
}

/// Has the newest format agreed on, whenever this node leads.
pub(crate) async fn run(raft: RaftNode, stop: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // Before there is a cluster nobody agrees on anything.
        if raft.state().cluster().is_none() {
            continue;
        }
        let raised = tokio::select! {
            () = stop.cancelled() => return,
            raised = raft.raise_format() => raised,
        };
        match raised {
            Ok(true) => info!(format = raft.state().format(), "all managers read this format from now on"),
            Ok(false) => {}
            Err(error) => debug!(%error, "format not agreed on yet"),
        }
    }
}
