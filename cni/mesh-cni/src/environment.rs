//! What the runtime says in the environment: the operation, and the container that it is about.

use std::path::PathBuf;

use mesh_types::{InterfaceName, Owner};

use crate::error::{CniError, Code};

/// An operation of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Join a container to a network.
    Add,
    /// Take it from there.
    Del,
    /// See whether it is as it should be.
    Check,
    /// Remove what belongs to no container of a list.
    Gc,
    /// See whether ADD would be served.
    Status,
    /// Tell the versions.
    Version,
}

/// One interface of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The runtime's id of the container.
    pub container: String,
    /// The interface that is meant.
    pub interface: InterfaceName,
    /// The container's network namespace; with DEL it may be gone, and then is often not given.
    pub namespace: Option<PathBuf>,
    /// `CNI_ARGS`.
    pub args: String,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The operation.
    pub operation: Operation,
    /// What it is about, for ADD, DEL and CHECK.
    pub attachment: Option<Attachment>,
}

impl Invocation {
    /// Reads the variables, by what `variable` says of each.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let operation = match get("CNI_COMMAND").as_deref() {
            Some("ADD") => Operation::Add,
            Some("DEL") => Operation::Del,
            Some("CHECK") => Operation::Check,
            Some("GC") => Operation::Gc,
            Some("STATUS") => Operation::Status,
            Some("VERSION") => Operation::Version,
            Some(other) => {
                let known = "there are ADD, DEL, CHECK, GC, STATUS and VERSION";
                return Err(wrong(vec![format!("CNI_COMMAND is {other:?}; {known}")]));
            }
            None => {
                return Err(wrong(vec![
                    "CNI_COMMAND is not set; container runtimes call this program and set it".to_owned(),
                ]));
            }
        };
        let attachment = match operation {
            Operation::Add | Operation::Check => Some(attachment(get, true)?),
            Operation::Del => Some(attachment(get, false)?),
            Operation::Gc | Operation::Status | Operation::Version => None,
        };
        Ok(Self { operation, attachment })
    }
}

impl Attachment {
    /// The name by which meshd knows it.
    pub fn owner(&self, network: &str) -> Result<Owner, CniError> {
        let owner = format!("{}{}/{}", owners_of(network), self.container, self.interface);
        Owner::new(owner).map_err(|_| {
            CniError::config(format!(
                "\"name\" and CNI_CONTAINERID are too long together: {} bytes, 230 fit",
                network.len() + self.container.len()
            ))
        })
    }
}

/// What the names of all attachments to a CNI network begin with.
pub fn owners_of(network: &str) -> String {
    format!("cni:{network}/")
}

/// A letter or digit, then letters, digits, `_`, `.` and `-`: ids of containers and names of networks.
pub fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn attachment(get: impl Fn(&str) -> Option<String>, need_namespace: bool) -> Result<Attachment, CniError> {
    let mut problems = Vec::new();
    let container = get("CNI_CONTAINERID").unwrap_or_default();
    match container.as_str() {
        "" => problems.push("CNI_CONTAINERID is not set".to_owned()),
        id if !is_identifier(id) => problems.push(format!(
            "CNI_CONTAINERID is {id:?}; it may have letters, digits, '_', '.' and '-', a letter or digit first"
        )),
        _ => {}
    }
    let namespace = get("CNI_NETNS").map(PathBuf::from);
    if need_namespace && namespace.is_none() {
        problems.push("CNI_NETNS is not set".to_owned());
    }
    let interface = match get("CNI_IFNAME") {
        None => Err("CNI_IFNAME is not set".to_owned()),
        Some(name) => InterfaceName::new(&name).map_err(|error| format!("CNI_IFNAME: {error}")),
    };
    match interface {
        Ok(interface) if problems.is_empty() => {
            Ok(Attachment { container, interface, namespace, args: get("CNI_ARGS").unwrap_or_default() })
        }
        interface => Err(wrong(problems.into_iter().chain(interface.err()).collect())),
    }
}

/// The error of variables that are wrong, one text each.
pub fn wrong(problems: Vec<String>) -> CniError {
    CniError::new(Code::Environment, "invalid environment variables", problems.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Invocation, CniError> {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Invocation::read(find)
    }

    #[test]
    fn each_operation_has_its_variables() {
        let all = [
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/run/netns/c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "A=b"),
        ];
        for (word, operation) in
            [("ADD", Operation::Add), ("DEL", Operation::Del), ("CHECK", Operation::Check)]
        {
            let read = read(&[&[("CNI_COMMAND", word)], all.as_slice()].concat()).unwrap();
            assert_eq!(read.operation, operation);
            let attachment = read.attachment.unwrap();
            assert_eq!(attachment.owner("prod").unwrap().as_str(), "cni:prod/c1/eth0");
            assert_eq!(attachment.args, "A=b");
        }
        for word in ["GC", "STATUS", "VERSION"] {
            assert_eq!(read(&[("CNI_COMMAND", word)]).unwrap().attachment, None);
        }
        let gone = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
        assert_eq!(read(&gone).unwrap().attachment.unwrap().namespace, None);
    }

    #[test]
    fn an_error_names_every_variable() {
        let details = |variables: &[(&str, &str)]| {
            let error = read(variables).unwrap_err();
            assert_eq!(error.code, Code::Environment);
            error.details
        };
        for missing in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
            assert!(details(&[("CNI_COMMAND", "ADD")]).contains(missing));
        }
        assert!(!details(&[("CNI_COMMAND", "DEL")]).contains("CNI_NETNS"));
        assert!(details(&[]).contains("CNI_COMMAND is not set"));
        assert!(details(&[("CNI_COMMAND", "add")]).contains("\"add\""));
        let wrong = |container, interface| {
            details(&[
                ("CNI_COMMAND", "CHECK"),
                ("CNI_CONTAINERID", container),
                ("CNI_NETNS", "/x"),
                ("CNI_IFNAME", interface),
            ])
        };
        for bad in ["-a", "a/b", "a b", ".", "é"] {
            assert!(wrong(bad, "eth0").contains(&format!("{bad:?}")));
        }
        for bad in ["..", "a/b", "a:b", "sixteen_letters_", "a b"] {
            assert!(wrong("c", bad).contains("CNI_IFNAME"), "{bad}");
        }
    }

    #[test]
    fn owners_have_an_end() {
        let attachment = Attachment {
            container: "c".repeat(200),
            interface: InterfaceName::new("eth0").unwrap(),
            namespace: None,
            args: String::new(),
        };
        assert_eq!(attachment.owner(&"n".repeat(90)).unwrap_err().code, Code::Config);
    }
}
