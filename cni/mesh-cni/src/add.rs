//! ADD: the container's namespace becomes a task, or a task that is there joins one more network.

use mesh_types::InterfaceName;
use serde_json::Value;

use crate::{
    arguments::Arguments,
    config::Config,
    daemon::{Daemon, answer},
    environment::Attachment,
    error::CniError,
    namespace, publish,
    result::result,
    wishes::Wishes,
};

/// Attaches it; the result that the runtime passes on. The same again is answered with what is there.
pub async fn add(attachment: &Attachment, config: &Config) -> Result<Value, CniError> {
    // First what can fail without a trace.
    let given = attachment.namespace.clone().unwrap_or_default();
    let path = namespace::find(&given)?;
    let owner = attachment.owner(&config.name)?;
    let interface = interface(attachment, config)?;
    let wishes = Wishes::new(config, Arguments::read(&attachment.args)?, &path, interface, owner)?;
    let network = wishes.request.networks.join(", ");
    let what = format!("cannot attach container {} to network {network}", attachment.container);
    let daemon = Daemon::connect(&config.socket).await.map_err(|refusal| refusal.told(&what))?;
    if !wishes.publish.is_empty() {
        publish::open(&daemon, &wishes.request.service, &wishes.publish).await?;
    }
    let attached = answer(daemon.local().attach(wishes.request)).await;
    let attached = attached.map_err(|refusal| refusal.told(&what))?;
    result(config, &given.to_string_lossy(), &attached)
}

/// What the interface is to be called. The runtime names the one that the first plugin makes.
pub fn interface(attachment: &Attachment, config: &Config) -> Result<InterfaceName, CniError> {
    let before = config.prev_result.as_ref().and_then(|previous| previous.get("interfaces")?.as_array());
    let taken = |name: &str| {
        let interfaces = before.into_iter().flatten();
        let mut inside = interfaces.filter(|i| i["sandbox"].as_str().is_some_and(|s| !s.is_empty()));
        inside.any(|interface| interface["name"] == name)
    };
    match config.interface {
        Some(name) => Ok(name),
        None if taken(attachment.interface.as_str()) => Err(CniError::config(format!(
            "a plugin before this one in the chain has made {}: name another interface with \"interface\", for \
             example \"mesh0\"",
            attachment.interface
        ))),
        None => Ok(attachment.interface),
    }
}
