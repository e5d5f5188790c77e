//! The engine's API: what Docker does not tell plugins.
//!
//! Docker holds a container's lock while it starts it, and calls the plugin meanwhile. So nothing here that a start waits
//! for asks for a single container: the list of containers and a network's page take no such lock.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use crate::http::{CallError, call};

/// Longest wait for what needs no container's lock.
const SHORT: Duration = Duration::from_secs(3);
/// Longest wait for a container that is being started.
const LONG: Duration = Duration::from_secs(120);

/// The engine behind its socket.
#[derive(Debug, Clone)]
pub struct Engine {
    socket: PathBuf,
}

/// Docker could not be asked.
#[derive(Debug, Error)]
#[error("cannot ask Docker at {}: {}", socket.display(), chain(source))]
pub struct EngineError {
    /// Where it was asked.
    pub socket: PathBuf,
    /// Why.
    pub source: CallError,
}

/// A network of Docker's.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerNetwork {
    /// Who drives it.
    #[serde(default)]
    pub driver: String,
    /// `-o` options.
    #[serde(default)]
    pub options: Option<BTreeMap<String, String>>,
    /// Who gives its addresses.
    #[serde(default, rename = "IPAM")]
    pub ipam: Option<Ipam>,
    /// Its endpoints, by container or `ep-ID`.
    #[serde(default)]
    pub containers: Option<BTreeMap<String, DockerEndpoint>>,
}

/// Who gives a network's addresses.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ipam {
    /// The driver.
    #[serde(default)]
    pub driver: String,
}

/// An endpoint of a network.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerEndpoint {
    /// The container's name.
    #[serde(default)]
    pub name: String,
    /// Its id.
    #[serde(default, rename = "EndpointID")]
    pub endpoint: String,
    /// With a prefix length, as the next; empty if there is none.
    #[serde(default, rename = "IPv4Address")]
    pub address: String,
    /// Likewise.
    #[serde(default, rename = "IPv6Address")]
    pub address6: String,
}

/// A container as a list has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// Its id.
    pub id: String,
    /// `/web`, and `/other/alias` for links.
    #[serde(default)]
    pub names: Vec<String>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Engine {
    /// The one that listens on the socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A network with its endpoints, by id; none if there is no such one.
    pub(crate) async fn network(&self, id: &str) -> Result<Option<DockerNetwork>, EngineError> {
        self.get(&format!("/networks/{}", escape(id)), SHORT).await
    }

    /// The ids of the networks of `driver`.
    pub(crate) async fn networks_of(&self, driver: &str) -> Result<Vec<String>, EngineError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            id: String,
        }
        let path = format!("/networks?filters={}", filter("driver", driver));
        let listed: Option<Vec<Listed>> = self.get(&path, SHORT).await?;
        Ok(listed.unwrap_or_default().into_iter().map(|network| network.id).collect())
    }

    /// The container of that name, running or not.
    pub(crate) async fn container(&self, name: &str) -> Result<Option<Container>, EngineError> {
        let path = format!("/containers/json?all=1&filters={}", filter("name", name));
        let listed: Option<Vec<Container>> = self.get(&path, SHORT).await?;
        let full = format!("/{name}");
        Ok(listed.unwrap_or_default().into_iter().find(|c| c.names.contains(&full)))
    }

    /// The names that a container has on a network besides its own, once it is started; none if it is gone.
    pub(crate) async fn aliases(
        &self,
        container: &str,
        endpoint: &str,
    ) -> Result<Option<Vec<String>>, EngineError> {
        let page: Option<Value> = self.get(&format!("/containers/{}/json", escape(container)), LONG).await?;
        Ok(page.and_then(|page| aliases_of(&page, endpoint)))
    }

    /// Stops a container at once.
    pub(crate) async fn kill(&self, container: &str) -> Result<(), EngineError> {
        let path = format!("/containers/{}/kill", escape(container));
        let killed = call(&self.socket, "POST", &path, LONG).await;
        match killed {
            // It is not there, or does not run.
            Ok(_) | Err(CallError::Refused { code: 404 | 409, .. }) => Ok(()),
            Err(source) => Err(self.failed(source)),
        }
    }

    async fn get<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        within: Duration,
    ) -> Result<Option<T>, EngineError> {
        let value = match call(&self.socket, "GET", path, within).await {
            Err(CallError::Refused { code: 404, .. }) => return Ok(None),
            answer => answer.map_err(|source| self.failed(source))?,
        };
        serde_json::from_value(value).map_err(|e| self.failed(e.into()))
    }

    fn failed(&self, source: CallError) -> EngineError {
        EngineError { socket: self.socket.clone(), source }
    }
}

fn aliases_of(page: &Value, endpoint: &str) -> Option<Vec<String>> {
    let networks = page.get("NetworkSettings")?.get("Networks")?.as_object()?;
    let network =
        networks.values().find(|n| n.get("EndpointID").and_then(Value::as_str) == Some(endpoint))?;
    let aliases = network.get("Aliases").and_then(Value::as_array);
    Some(aliases.into_iter().flatten().filter_map(|a| a.as_str().map(str::to_owned)).collect())
}

/// `filters` of one key, in JSON and percent-encoded.
fn filter(key: &str, value: &str) -> String {
    escape(&serde_json::json!({ key: [value] }).to_string())
}

/// RFC 3986, section 2.1: all but the unreserved characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_travel_in_paths() {
        assert_eq!(filter("name", "a b"), "%7B%22name%22%3A%5B%22a%20b%22%5D%7D");
    }

    #[test]
    fn aliases_are_those_of_the_endpoint() {
        let page = serde_json::json!({"NetworkSettings": {"Networks": {
            "bridge": {"EndpointID": "e1", "Aliases": null},
            "prod": {"EndpointID": "e2", "Aliases": ["db", "0123456789ab"]},
        }}});
        assert_eq!(aliases_of(&page, "e2"), Some(vec!["db".to_owned(), "0123456789ab".to_owned()]));
        assert_eq!(aliases_of(&page, "e1"), Some(Vec::new()));
        assert_eq!(aliases_of(&page, "e3"), None);
    }
}
