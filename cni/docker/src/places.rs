//! Which network of the mesh a network of Docker stands for.

use std::time::Duration;

use mesh_types::{ClusterView, Network, NetworkId};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::{
    book::KeptNetwork,
    mesh::Refusal,
    plugin::{Plugin, PluginError},
    protocol::{DOCKERS_OWN, GENERIC},
};

/// `-o network=prod`, and `--ipam-opt network=prod`.
pub(crate) const NETWORK: &str = "network";
/// Address space of the pools that our address plugin gives.
pub(crate) const ADDRESS_SPACE: &str = "mesh";

/// Longest wait for what this node has not heard of.
const NEWS: Duration = Duration::from_secs(1);
/// How often it is looked for meanwhile.
const NEWS_POLL: Duration = Duration::from_millis(20);

impl Plugin {
    /// What the managers decided. What was decided a moment ago may still be on its way to this node: until the view is as
    /// `wanted` it gets a little time.
    pub(crate) async fn view_with(
        &self,
        wanted: impl Fn(&ClusterView) -> bool + Send,
    ) -> Result<ClusterView, Refusal> {
        let until = Instant::now() + NEWS;
        loop {
            let view = self.mesh.view().await?;
            if wanted(&view) || Instant::now() >= until {
                return Ok(view);
            }
            tokio::time::sleep(NEWS_POLL).await;
        }
    }

    /// The same, with a network that a reference means.
    pub(crate) async fn view_of(&self, reference: &str) -> Result<ClusterView, Refusal> {
        self.view_with(|view| view.network(reference).is_ok()).await
    }

    /// The network that Docker's one stands for: as the book has it, else as the engine has it, for instance after the
    /// state folder was lost.
    pub(crate) async fn place(&self, docker: &str) -> Result<KeptNetwork, PluginError> {
        if let Some(kept) = self.book.read(|pages| pages.networks.get(docker).cloned()) {
            return Ok(kept);
        }
        let unknown = || PluginError::UnknownNetwork(docker.to_owned());
        let page = self.engine.network(docker).await.ok().flatten().ok_or_else(unknown)?;
        if page.driver != self.options.driver {
            return Err(unknown());
        }
        let options = page.options.unwrap_or_default();
        let reference = options.get(NETWORK).ok_or_else(unknown)?;
        let view = self.view_of(reference).await?;
        let network = find(&view, reference)?.id;
        let addressed = page.ipam.is_some_and(|ipam| ipam.driver == self.options.driver);
        let kept = KeptNetwork { network, addressed };
        self.book.write(|pages| pages.networks.insert(docker.to_owned(), kept.clone()))?;
        Ok(kept)
    }
}

/// The network of the mesh that a reference of the user's means; it has to be one that containers may be on.
pub(crate) fn find<'a>(view: &'a ClusterView, reference: &str) -> Result<&'a Network, PluginError> {
    match view.network(reference) {
        Ok(network) if network.ingress => Err(PluginError::Ingress(network.name.clone())),
        Ok(network) => Ok(network),
        Err(_) => Err(PluginError::NoSuchNetwork {
            reference: reference.to_owned(),
            known: names(view.networks.values().filter(|n| !n.ingress).map(|n| n.name.as_str())),
        }),
    }
}

/// The same by id: it may have been removed since.
pub(crate) fn by_id(view: &ClusterView, id: NetworkId) -> Result<&Network, PluginError> {
    view.networks.get(&id).ok_or(PluginError::Removed(id))
}

/// The reference under `-o network=`; every other option that is not Docker's own is refused.
pub(crate) fn option(options: Option<&Map<String, Value>>) -> Result<String, PluginError> {
    let generic = options.and_then(|o| o.get(GENERIC)).and_then(Value::as_object);
    let mut reference = None;
    for (key, value) in generic.into_iter().flatten() {
        match key.as_str() {
            NETWORK => reference = value.as_str().map(str::to_owned).filter(|text| !text.is_empty()),
            key if key.starts_with(DOCKERS_OWN) => {}
            other => return Err(PluginError::UnknownOption(other.to_owned())),
        }
    }
    reference.ok_or(PluginError::NoOption)
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    match names.is_empty() {
        true => "there is none".to_owned(),
        false => format!("there are {}", names.join(", ")),
    }
}
