//! CHECK: the container has what ADD answered, and meshd knows of it.

use mesh_api::v1::{GetTaskRequest, TaskInterface};
use serde_json::Value;

use crate::{
    config::Config,
    daemon::{Daemon, Refusal, answer},
    environment::Attachment,
    error::{CniError, Code},
    namespace,
};

/// Finds out; an error names all that is otherwise.
pub async fn check(attachment: &Attachment, config: &Config) -> Result<(), CniError> {
    let Some(previous) = &config.prev_result else {
        return Err(CniError::config("\"prevResult\" is missing: CHECK needs the result of ADD"));
    };
    let path = namespace::find(&attachment.namespace.clone().unwrap_or_default())?;
    let owner = attachment.owner(&config.name)?;
    let what =
        format!("container {} is not on network {} as it should be", attachment.container, config.network);
    let daemon = Daemon::connect(&config.socket).await.map_err(|refusal| refusal.told(&what))?;
    let request = GetTaskRequest { owner: owner.to_string(), ..GetTaskRequest::default() };
    let task = answer(daemon.local().get_task(request)).await.map_err(|refusal| match refusal {
        Refusal::Refused(status) if status.code() == tonic::Code::NotFound => {
            let details = format!("meshd on this node has no task of {owner}");
            CniError::new(Code::UnknownContainer, &what, details)
        }
        refusal => refusal.told(&what),
    })?;
    let mut problems = Vec::new();
    for made in task.interfaces.iter().filter(|interface| interface.owner == owner.as_str()) {
        problems.extend(unlike_the_result(made, previous));
        match namespace::interface(&path, &made.interface) {
            Ok(seen) => problems.extend(unlike_the_task(made, seen.unwrap_or_default())),
            Err(error) => problems.push(format!("cannot look into {}: {error}", path.display())),
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(CniError::new(Code::Failed, what, problems.join("; "))),
    }
}

/// What the runtime remembers and meshd does not have.
fn unlike_the_result(made: &TaskInterface, previous: &Value) -> Vec<String> {
    let list = |key: &str| previous.get(key).and_then(Value::as_array).into_iter().flatten();
    let is_made =
        |i: &&Value| i["name"] == made.interface && i["sandbox"].as_str().is_some_and(|s| !s.is_empty());
    if !list("interfaces").any(|interface| is_made(&interface)) {
        return vec![format!("interface {} is not in \"prevResult\"", made.interface)];
    }
    let missing = made.addresses.iter().filter(|address| !list("ips").any(|ip| ip["address"] == **address));
    missing.map(|address| format!("address {address} is not in \"prevResult\"")).collect()
}

/// What meshd made and the container does not have.
fn unlike_the_task(made: &TaskInterface, seen: namespace::Interface) -> Vec<String> {
    let name = &made.interface;
    if seen == namespace::Interface::default() {
        return vec![format!("there is no interface {name}")];
    }
    let mut problems = Vec::new();
    if !seen.up {
        problems.push(format!("interface {name} is down"));
    }
    // The data path drops what comes from another one.
    if let Some(mac) = seen.mac.map(|mac| mac.to_string()).filter(|mac| *mac != made.mac) {
        problems.push(format!("interface {name} has the Ethernet address {mac}, not {}", made.mac));
    }
    let has =
        |address: &str| seen.addresses.iter().any(|a| address.split('/').next() == Some(&a.to_string()));
    let missing = made.addresses.iter().filter(|address| !has(address));
    problems.extend(missing.map(|address| format!("interface {name} has not the address {address}")));
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made() -> TaskInterface {
        TaskInterface {
            interface: "eth0".to_owned(),
            mac: "02:42:0a:0a:03:05".to_owned(),
            addresses: vec!["10.10.3.5/24".to_owned(), "fd00::5/64".to_owned()],
            ..TaskInterface::default()
        }
    }

    #[test]
    fn what_the_container_lacks_is_named() {
        let seen = namespace::Interface {
            up: true,
            mac: Some("02:42:0a:0a:03:05".parse().unwrap()),
            addresses: vec!["10.10.3.5".parse().unwrap(), "fd00::5".parse().unwrap()],
        };
        assert_eq!(unlike_the_task(&made(), seen.clone()), Vec::<String>::new());
        let without = namespace::Interface { addresses: vec!["fd00::5".parse().unwrap()], ..seen.clone() };
        assert_eq!(unlike_the_task(&made(), without), ["interface eth0 has not the address 10.10.3.5/24"]);
        let other =
            namespace::Interface { up: false, mac: Some("02:00:00:00:00:01".parse().unwrap()), ..seen };
        assert_eq!(unlike_the_task(&made(), other).len(), 2);
        let none = unlike_the_task(&made(), namespace::Interface::default());
        assert_eq!(none, ["there is no interface eth0"]);
    }

    #[test]
    fn what_the_runtime_remembers_is_compared() {
        let previous = |address: &str| {
            json!({
                "interfaces": [{"name": "msh1"}, {"name": "eth0", "sandbox": "/run/netns/c1"}],
                "ips": [{"address": address}, {"address": "fd00::5/64"}],
            })
        };
        assert_eq!(unlike_the_result(&made(), &previous("10.10.3.5/24")), Vec::<String>::new());
        assert_eq!(unlike_the_result(&made(), &previous("10.10.3.6/24")).len(), 1);
        assert_eq!(unlike_the_result(&made(), &json!({"interfaces": [{"name": "eth0"}]})).len(), 1);
        assert_eq!(unlike_the_result(&made(), &json!({})).len(), 1);
    }
}
