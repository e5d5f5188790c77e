//! The tables that let tasks out: there for as long as a task of this node has a way out of their family, and a little longer:
//! containers come and go, and nft takes 10 to 40 ms to make a table. With them the kernel tracks every connection of the node,
//! which costs the node's own ones too, so they do not stay for ever.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use mesh_types::LocalEndpointId;
use tracing::warn;

use crate::{
    Agent, AgentError, Attachment, LocalTask,
    host::{Host, NFT_TABLE, egress_pool, egress_pool6},
    planner::Family,
};

/// Who has a way out, by family.
#[derive(Debug, Default)]
pub(crate) struct WaysOut {
    v4: Way,
    v6: Way,
    /// Whether somebody waits to remove tables that nobody needs.
    awaited: bool,
}

#[derive(Debug, Default)]
struct Way {
    /// An id is one attachment's until its link is gone.
    users: BTreeSet<LocalEndpointId>,
    /// Whether its table was made, and not removed since.
    open: bool,
    /// Since when nobody has needed it.
    idle: Option<Instant>,
}

impl WaysOut {
    fn of(&mut self, family: Family) -> &mut Way {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// Since when the table that is idle for longest is so.
    fn idle(&self) -> Option<Instant> {
        [self.v4.idle, self.v6.idle].into_iter().flatten().min()
    }
}

fn has_way_out(attachment: &Attachment, family: Family) -> bool {
    match family {
        Family::V4 => attachment.egress4.is_some(),
        Family::V6 => attachment.egress6.is_some(),
    }
}

fn ensure(family: Family) -> Result<(), AgentError> {
    match family {
        Family::V4 => Host::ensure_egress(),
        Family::V6 => Host::ensure_egress6(),
    }
}

fn pool(family: Family) -> IpNet {
    match family {
        Family::V4 => egress_pool(),
        Family::V6 => egress_pool6(),
    }
}

/// Makes tables that are not there, with one run of nft.
fn make(families: &[Family]) -> Result<(), AgentError> {
    for family in families {
        match family {
            Family::V4 => mesh_netlink::enable_forwarding()?,
            Family::V6 => mesh_netlink::enable_forwarding6()?,
        }
    }
    let pools: Vec<IpNet> = families.iter().copied().map(pool).collect();
    Ok(mesh_netlink::make_masquerade(NFT_TABLE, &pools)?)
}

fn remove(family: Family) -> Result<(), AgentError> {
    Ok(mesh_netlink::remove_masquerade_of(NFT_TABLE, pool(family))?)
}

/// Makes the tables that `tasks` of before a restart need.
pub(crate) fn ensure_for(tasks: &[LocalTask]) -> Result<(), AgentError> {
    let needed = |family: &Family| tasks.iter().flat_map(|t| &t.attachments).any(|a| has_way_out(a, *family));
    Family::ALL.into_iter().filter(needed).try_for_each(ensure)
}

/// nft is waited for off the threads that must not wait.
async fn on_thread(work: impl FnOnce() -> Result<(), AgentError> + Send + 'static) -> Result<(), AgentError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The daemon ends.
        Err(_) => Ok(()),
    }
}

impl Agent {
    /// Opens the ways out of an attachment whose link is to be made, or none.
    pub(crate) async fn open_way_out(&self, attachment: &Attachment) -> Result<(), AgentError> {
        let opened = self.open_ways(attachment).await;
        if opened.is_err()
            && let Err(error) = self.close_way_out(attachment).await
        {
            warn!(%error, "roll back of a way out");
        }
        opened
    }

    async fn open_ways(&self, attachment: &Attachment) -> Result<(), AgentError> {
        let mut ways = self.inner.ways_out.lock().await;
        let needed = Family::ALL.into_iter().filter(|family| has_way_out(attachment, *family));
        let closed: Vec<Family> = needed.clone().filter(|family| !ways.of(*family).open).collect();
        if !closed.is_empty() {
            on_thread(move || make(&closed)).await?;
        }
        for family in needed {
            let way = ways.of(family);
            way.open = true;
            way.idle = None;
            way.users.insert(attachment.local_id);
        }
        Ok(())
    }

    /// Closes those of an attachment whose link is gone; a table that nobody else needs goes a while later.
    pub(crate) async fn close_way_out(&self, attachment: &Attachment) -> Result<(), AgentError> {
        let mut ways = self.inner.ways_out.lock().await;
        for family in Family::ALL {
            let way = ways.of(family);
            if way.users.remove(&attachment.local_id) && way.users.is_empty() {
                way.idle = Some(Instant::now());
            }
        }
        let linger = self.inner.options.egress_linger;
        if linger.is_zero() {
            return close_idle(&mut ways, linger).await;
        }
        if ways.idle().is_some() && !ways.awaited {
            ways.awaited = true;
            let stop = self.inner.stop.clone();
            tokio::spawn(stop.run_until_cancelled_owned(self.clone().close_in_time(linger)));
        }
        Ok(())
    }

    async fn close_in_time(self, linger: Duration) {
        loop {
            let until = {
                let mut ways = self.inner.ways_out.lock().await;
                if let Err(error) = close_idle(&mut ways, linger).await {
                    warn!(%error, "remove a table that let tasks out");
                }
                let Some(idle) = ways.idle() else {
                    ways.awaited = false;
                    return;
                };
                idle + linger
            };
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// Removes the tables that nobody needs, at once.
    pub(crate) async fn close_unused_ways_out(&self) -> Result<(), AgentError> {
        close_idle(&mut *self.inner.ways_out.lock().await, Duration::ZERO).await
    }

    /// Takes over the ways out of the tasks that are there after a restart, and closes those that nobody has any more.
    pub(crate) async fn adopt_ways_out(&self) -> Result<(), AgentError> {
        let tasks = self.lock().tasks.clone();
        let mut ways = self.inner.ways_out.lock().await;
        for family in Family::ALL {
            let with = tasks.iter().flat_map(|t| &t.attachments).filter(|a| has_way_out(a, family));
            let way = ways.of(family);
            way.users.extend(with.map(|a| a.local_id));
            way.open = !way.users.is_empty();
            if !way.open {
                on_thread(move || remove(family)).await?;
            }
        }
        Ok(())
    }
}

/// Removes the tables that nobody has needed for that long; goes on past errors and returns the first. One that could not be
/// removed is made anew by whoever needs it next.
async fn close_idle(ways: &mut WaysOut, linger: Duration) -> Result<(), AgentError> {
    let mut done = Ok(());
    for family in Family::ALL {
        let way = ways.of(family);
        if way.idle.is_some_and(|since| since.elapsed() >= linger) {
            (way.idle, way.open) = (None, false);
            done = done.and(on_thread(move || remove(family)).await);
        }
    }
    done
}
