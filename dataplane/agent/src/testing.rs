//! Tests of connectivity as the daemon carries them out.

use std::collections::BTreeSet;

use mesh_api::v1;
use mesh_types::{Endpoint, NetworkId, NodeId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Agent, SessionError};

impl Agent {
    /// Which node this is.
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// The tests that the managers want, as they change.
    pub fn tests(&self) -> watch::Receiver<Vec<v1::TestOrder>> {
        self.inner.session.tests()
    }

    /// Tells the managers what came of a test.
    pub async fn report_test(&self, report: v1::TestReport) -> Result<(), SessionError> {
        self.inner.session.report_test(report).await
    }

    /// Is cancelled when the agent stops.
    pub fn stopping(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// The endpoints on a network of these nodes, as far as this one has heard.
    pub fn heard_on(&self, network: NetworkId, nodes: &BTreeSet<NodeId>) -> Vec<Endpoint> {
        let (endpoints, _) = self.endpoints();
        endpoints.into_iter().filter(|e| e.network == network && nodes.contains(&e.node)).collect()
    }
}
