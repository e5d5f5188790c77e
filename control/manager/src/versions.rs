//! Managers of neighbouring versions: whoever leads brings them to the newest format that all read.

use std::{ops::RangeInclusive, time::Duration};

use mesh_raft::RaftNode;
use mesh_store::{NEWEST_FORMAT, OLDEST_FORMAT};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

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
