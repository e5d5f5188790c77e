//! The cluster's CA, its settings, and the key that unlocks managers.

use mesh_types::NodeId;

use super::{Change, Outcome};
use crate::{
    MAX_CERT_VALIDITY, MIN_CERT_VALIDITY, NewRoot, PreviousRoot, Rejection, Response, Sensitive,
    state::Cluster,
};

impl Cluster {
    pub(super) fn rotate_ca(&mut self, new: NewRoot) -> Outcome {
        if self.authority.previous.is_some() || new.replaces_pem != self.secrets.ca_cert_pem {
            return Err(Rejection::CaChanges);
        }
        let cert_pem = std::mem::replace(&mut self.secrets.ca_cert_pem, new.cert_pem);
        self.secrets.ca_key_pem = new.key_pem;
        self.authority.previous = Some(PreviousRoot { cert_pem, cross_pem: new.cross_pem });
        self.authority.generation += 1;
        Ok((Response::Done, Change::View))
    }

    /// A node was seen with a certificate of this generation.
    pub(super) fn certificate_in_use(&mut self, node: NodeId, generation: u64) -> Outcome {
        self.known_node(node)?;
        if generation > self.authority.generation || generation == self.authority.in_use(node) {
            return Ok((Response::Done, Change::Nothing));
        }
        self.authority.in_use.insert(node, generation);
        let change = if self.drop_previous_root() { Change::View } else { Change::Hidden };
        Ok((Response::Done, change))
    }

    /// A node is gone: nobody waits for its certificate any more.
    pub(super) fn forget_certificate(&mut self, node: NodeId) {
        self.authority.in_use.remove(&node);
        self.drop_previous_root();
    }

    /// Once every node has a certificate of the present root, nobody needs the one before.
    fn drop_previous_root(&mut self) -> bool {
        let authority = &mut self.authority;
        let all = self.nodes.keys().all(|node| authority.in_use(*node) == authority.generation);
        if authority.previous.is_none() || !all {
            return false;
        }
        authority.previous = None;
        authority.generation += 1;
        true
    }

    pub(super) fn update_cluster(
        &mut self,
        cert_validity_secs: Option<u64>,
        unlock_key: Option<Option<Sensitive<[u8; 32]>>>,
    ) -> Outcome {
        if let Some(given) = cert_validity_secs
            && !(MIN_CERT_VALIDITY..=MAX_CERT_VALIDITY).contains(&given)
        {
            return Err(Rejection::CertValidity { given });
        }
        let before = (self.authority.validity_secs, self.unlock_key.clone());
        self.authority.validity_secs = cert_validity_secs.unwrap_or(self.authority.validity_secs);
        self.unlock_key = unlock_key.unwrap_or_else(|| self.unlock_key.clone());
        let same = before == (self.authority.validity_secs, self.unlock_key.clone());
        Ok((Response::Done, if same { Change::Nothing } else { Change::Hidden }))
    }
}
