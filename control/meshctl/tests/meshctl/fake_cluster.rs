//! The fake daemon's Cluster service.

use mesh_api::v1::{self, cluster_server::Cluster};
use tonic::{Request, Response, Status};

use crate::{
    data::{CLUSTER, NODE_1, NODE_2},
    fake::Service,
};

const KEY: &str = "MESHKEY-1-abc";

fn ca(generation: u64, rotating: bool, late: bool) -> v1::CaStatus {
    let node = |id: &str, name: &str, current| v1::NodeCertificate {
        node_id: id.to_owned(),
        name: name.to_owned(),
        current,
    };
    v1::CaStatus {
        generation,
        digest: "digest".to_owned(),
        certificate: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
        rotating,
        nodes: vec![node(NODE_1, "n1", true), node(NODE_2, "n2", !late)],
    }
}

fn gossip_keys(rotation_secs: u64) -> v1::GossipKeys {
    v1::GossipKeys {
        rotation_secs,
        since: 1_700_000_000,
        phase: "spreading".to_owned(),
        keys: 2,
        urgent: false,
        waiting: vec!["n2".to_owned()],
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn get_cluster(
        &self,
        request: Request<v1::GetClusterRequest>,
    ) -> Result<Response<v1::ClusterSettings>, Status> {
        let settings = v1::ClusterSettings {
            cluster_id: CLUSTER.to_owned(),
            cert_expiry_secs: 90 * 86_400,
            lease_grace_secs: 72 * 3600,
            gossip_keys: Some(gossip_keys(12 * 3600)),
            ..Default::default()
        };
        self.change(request, settings)
    }

    async fn update_cluster(
        &self,
        request: Request<v1::UpdateClusterRequest>,
    ) -> Result<Response<v1::ClusterSettings>, Status> {
        let asked = *request.get_ref();
        let autolock = asked.autolock.unwrap_or_default();
        let answer = v1::ClusterSettings {
            cluster_id: CLUSTER.to_owned(),
            cert_expiry_secs: asked.cert_expiry_secs.unwrap_or(90 * 86_400),
            autolock,
            unlock_key: if autolock { KEY.to_owned() } else { String::new() },
            gossip_keys: asked.gossip_rotation_secs.map(gossip_keys),
            ..Default::default()
        };
        self.change(request, answer)
    }

    /// The first look finds a node that is late, the second none.
    async fn get_ca(&self, request: Request<v1::GetCaRequest>) -> Result<Response<v1::CaStatus>, Status> {
        let looks = self.asked_for("GetCaRequest");
        self.change(request, if looks == 0 { ca(2, true, true) } else { ca(3, false, false) })
    }

    async fn rotate_ca(
        &self,
        request: Request<v1::RotateCaRequest>,
    ) -> Result<Response<v1::CaStatus>, Status> {
        self.change(request, ca(2, true, true))
    }

    async fn rotate_gossip_keys(
        &self,
        request: Request<v1::RotateGossipKeysRequest>,
    ) -> Result<Response<v1::ClusterSettings>, Status> {
        let gossip_keys = Some(gossip_keys(0));
        self.change(request, v1::ClusterSettings { gossip_keys, ..Default::default() })
    }

    async fn get_unlock_key(
        &self,
        request: Request<v1::UnlockKeyRequest>,
    ) -> Result<Response<v1::UnlockKeyResponse>, Status> {
        self.change(request, v1::UnlockKeyResponse { unlock_key: KEY.to_owned() })
    }
}
