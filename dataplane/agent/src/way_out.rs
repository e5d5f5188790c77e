//! The tables that let tasks out: there for as long as a task of this node has a way out of their family. With them the
//! kernel tracks every connection of the node, which costs the node's own ones too.

use std::collections::BTreeSet;

use mesh_types::LocalEndpointId;

use crate::{
    Agent, AgentError, Attachment, LocalTask,
    host::{Host, NFT_TABLE, egress_pool, egress_pool6},
    planner::Family,
};

/// Who has a way out, by family. An id is one attachment's until its link is gone.
#[derive(Debug, Default)]
pub(crate) struct WaysOut {
    v4: BTreeSet<LocalEndpointId>,
    v6: BTreeSet<LocalEndpointId>,
}

impl WaysOut {
    fn of(&mut self, family: Family) -> &mut BTreeSet<LocalEndpointId> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
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

fn remove(family: Family) -> Result<(), AgentError> {
    let pool = match family {
        Family::V4 => egress_pool(),
        Family::V6 => egress_pool6(),
    };
    Ok(mesh_netlink::remove_masquerade_of(NFT_TABLE, pool)?)
}

/// Makes the tables that `tasks` of before a restart need.
pub(crate) fn ensure_for(tasks: &[LocalTask]) -> Result<(), AgentError> {
    let needed = |family: &Family| tasks.iter().flat_map(|t| &t.attachments).any(|a| has_way_out(a, *family));
    Family::ALL.into_iter().filter(needed).try_for_each(ensure)
}

impl Agent {
    /// Opens the ways out of an attachment whose link is to be made.
    pub(crate) async fn open_way_out(&self, attachment: &Attachment) -> Result<(), AgentError> {
        let mut ways = self.inner.ways_out.lock().await;
        for family in Family::ALL.into_iter().filter(|family| has_way_out(attachment, *family)) {
            if ways.of(family).is_empty() {
                ensure(family)?;
            }
            ways.of(family).insert(attachment.local_id);
        }
        Ok(())
    }

    /// Closes those of an attachment whose link is gone.
    pub(crate) async fn close_way_out(&self, attachment: &Attachment) -> Result<(), AgentError> {
        let mut ways = self.inner.ways_out.lock().await;
        let mut done = Ok(());
        for family in Family::ALL {
            let last = ways.of(family).remove(&attachment.local_id) && ways.of(family).is_empty();
            if last {
                done = done.and(remove(family));
            }
        }
        done
    }

    /// Takes over the ways out of the tasks that are there after a restart, and closes those that nobody has any more.
    pub(crate) async fn adopt_ways_out(&self) -> Result<(), AgentError> {
        let tasks = self.lock().tasks.clone();
        let mut ways = self.inner.ways_out.lock().await;
        for family in Family::ALL {
            let with = tasks.iter().flat_map(|t| &t.attachments).filter(|a| has_way_out(a, family));
            ways.of(family).extend(with.map(|a| a.local_id));
            if ways.of(family).is_empty() {
                remove(family)?;
            }
        }
        Ok(())
    }
}
