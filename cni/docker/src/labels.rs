//! What the labels of a container ask for: `mesh.service`, `mesh.alias`, `mesh.publish`.

use std::collections::BTreeMap;

use mesh_types::{Name, NameError, PortConfig};
use thiserror::Error;

/// The service that the container is a task of.
const SERVICE: &str = "mesh.service";
/// Further names, by commas or spaces.
const ALIAS: &str = "mesh.alias";
/// Ports of the routing mesh, likewise.
const PUBLISH: &str = "mesh.publish";
/// What our keys begin with; one that is not known is a slip of the pen.
const OURS: &str = "mesh.";

/// What a container is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// A task of this service; by name, id or prefix.
    pub service: Option<String>,
    /// Further names.
    pub aliases: Vec<Name>,
    /// To be open on every node for the service.
    pub publish: Vec<PortConfig>,
}

/// The labels make no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LabelError {
    /// Nothing is known by that name.
    #[error("label {0} is not known; there are {SERVICE}, {ALIAS} and {PUBLISH}")]
    Unknown(String),
    /// A service without a name.
    #[error("label {SERVICE} is empty; give the name of a service, or leave the label out")]
    NoService,
    /// Not a name.
    #[error("label {ALIAS}: {0}")]
    Alias(NameError),
    /// Not a port.
    #[error("label {PUBLISH}: {0:?} is no port; write PUBLISHED:TARGET, such as 8080:80 or 5353:53/udp")]
    Port(String),
    /// Ports belong to services.
    #[error(
        "label {PUBLISH} needs {SERVICE}: ports of the routing mesh are those of a service (a port of this host alone: docker run -p)"
    )]
    PublishAlone,
}

impl Labels {
    /// Reads those of ours among `labels`.
    pub fn read(labels: &BTreeMap<String, String>) -> Result<Self, LabelError> {
        let mut read = Self::default();
        for (key, value) in labels.iter().filter(|(key, _)| key.starts_with(OURS)) {
            let words = || value.split([',', ' ']).filter(|word| !word.is_empty());
            match key.as_str() {
                SERVICE if value.trim().is_empty() => return Err(LabelError::NoService),
                SERVICE => read.service = Some(value.trim().to_owned()),
                ALIAS => {
                    for word in words() {
                        read.aliases.push(Name::new(word).map_err(LabelError::Alias)?);
                    }
                }
                PUBLISH => {
                    for word in words() {
                        let port = publish(word).ok_or_else(|| LabelError::Port(word.to_owned()))?;
                        read.publish.push(port);
                    }
                }
                other => return Err(LabelError::Unknown(other.to_owned())),
            }
        }
        match read.publish.is_empty() || read.service.is_some() {
            true => Ok(read),
            false => Err(LabelError::PublishAlone),
        }
    }
}

/// `PUBLISHED:TARGET[/PROTOCOL]`; a port that the managers choose is none, since nobody would be told which.
fn publish(text: &str) -> Option<PortConfig> {
    text.parse::<PortConfig>().ok().filter(|port| port.published != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(labels: &[(&str, &str)]) -> Result<Labels, LabelError> {
        Labels::read(&labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn what_is_asked_for() {
        assert_eq!(read(&[("com.example", "x")]), Ok(Labels::default()));
        let labels = read(&[
            ("mesh.service", " web "),
            ("mesh.alias", "www, shop"),
            ("mesh.publish", "8080:80 5353:53/udp"),
        ])
        .unwrap();
        assert_eq!(labels.service.as_deref(), Some("web"));
        assert_eq!(labels.aliases.iter().map(Name::as_str).collect::<Vec<_>>(), ["www", "shop"]);
        let ports: Vec<_> = labels.publish.iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["8080:80/tcp", "5353:53/udp"]);
    }

    #[test]
    fn what_makes_no_sense() {
        for (key, value, word) in [
            ("mesh.servce", "web", "mesh.servce"),
            ("mesh.service", "", "empty"),
            ("mesh.alias", "a,-b", "label mesh.alias: name \"-b\""),
            ("mesh.alias", "a..b", "label mesh.alias: name \"a..b\""),
            ("mesh.alias", "a-.b c", "\"a-.b\""),
            ("mesh.publish", "80:80", "mesh.service"),
            ("mesh.publish", "80", "\"80\""),
            ("mesh.publish", "0:80", "\"0:80\""),
            ("mesh.publish", "80:80/icmp", "80:80/icmp"),
            ("mesh.publish", "80:70000", "70000"),
        ] {
            let error = read(&[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
