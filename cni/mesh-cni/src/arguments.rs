//! `CNI_ARGS`: what is said about one container alone, as `MESH_SERVICE=web;MESH_ALIAS=db,cache;IP=10.10.3.9`.

use std::{fmt::Display, net::IpAddr, str::FromStr};

use mesh_types::{MAX_WEIGHT, Mac, Name, PortConfig};

use crate::{
    config::{StaticAddress, published},
    environment::wrong,
    error::CniError,
};

/// What of it concerns this plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    /// `MESH_NETWORK`.
    pub network: Option<String>,
    /// `MESH_SERVICE`.
    pub service: Option<String>,
    /// `MESH_NAME`, else the pod's, with its namespace where that is another word.
    pub name: Option<Name>,
    /// `MESH_ALIAS`, which may come more than once.
    pub aliases: Vec<Name>,
    /// `MESH_WEIGHT`.
    pub weight: Option<u16>,
    /// `MESH_PUBLISH`, which may come more than once.
    pub publish: Vec<PortConfig>,
    /// `IP`.
    pub addresses: Vec<IpAddr>,
    /// `MAC`.
    pub mac: Option<Mac>,
}

impl Arguments {
    /// Reads the pairs. Those that are not this plugin's are another one's: all plugins of a chain are given the same.
    pub fn read(text: &str) -> Result<Self, CniError> {
        let mut pairs = Vec::new();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let Some(pair) = pair.split_once('=') else {
                return Err(wrong(vec![format!("CNI_ARGS: {pair:?} is not of the form KEY=VALUE")]));
            };
            pairs.push(pair);
        }
        let value = |key: &str| pairs.iter().find(|(k, v)| *k == key && !v.is_empty()).map(|(_, v)| *v);
        let lenient = value("IgnoreUnknown").is_some_and(|v| ["1", "true"].contains(&&*v.to_lowercase()));
        let (mut read, mut problems) = (Self::default(), Vec::new());
        for &(key, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
            let mut note = |problem: Option<String>| {
                problems.extend(problem.map(|problem| format!("CNI_ARGS: {key}: {problem}")));
            };
            match key {
                "MESH_NETWORK" => read.network = Some(value.to_owned()),
                "MESH_SERVICE" => read.service = Some(value.to_owned()),
                "MESH_NAME" => note(one(value, &mut read.name)),
                "MESH_ALIAS" => note(many(value, &mut read.aliases)),
                "MESH_WEIGHT" => match value.parse() {
                    Ok(weight @ 1..=MAX_WEIGHT) => read.weight = Some(weight),
                    _ => note(Some(format!("{value:?} is not a weight of 1 to {MAX_WEIGHT}"))),
                },
                "MESH_PUBLISH" => match published(value) {
                    Ok(ports) => read.publish.extend(ports),
                    Err(error) => note(Some(error)),
                },
                "MAC" => note(one(value, &mut read.mac)),
                "IP" => {
                    let mut addresses: Vec<StaticAddress> = Vec::new();
                    note(many(value, &mut addresses));
                    read.addresses.extend(addresses.into_iter().map(|address| address.0));
                }
                key if key.starts_with("MESH_") && !lenient => {
                    let known = "there are MESH_NETWORK, MESH_SERVICE, MESH_NAME, MESH_ALIAS, MESH_WEIGHT and \
                                 MESH_PUBLISH";
                    note(Some(format!("is not known; {known}")));
                }
                _ => {}
            }
        }
        if !problems.is_empty() {
            return Err(wrong(problems));
        }
        let pod = pod_name(value("K8S_POD_NAME"), value("K8S_POD_NAMESPACE"));
        read.name = read.name.or(pod);
        Ok(read)
    }
}

/// A pod's name is unique in its namespace alone. What is no name of a task is left out: the pod did not ask for one.
fn pod_name(name: Option<&str>, namespace: Option<&str>) -> Option<Name> {
    let name = name?;
    match namespace.filter(|namespace| *namespace != "default" && *namespace != name) {
        Some(namespace) => Name::new(format!("{name}.{namespace}")).ok(),
        None => Name::new(name).ok(),
    }
}

fn one<T: FromStr<Err: Display>>(text: &str, into: &mut Option<T>) -> Option<String> {
    match text.parse() {
        Ok(value) => {
            *into = Some(value);
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

fn many<T: FromStr<Err: Display>>(text: &str, into: &mut Vec<T>) -> Option<String> {
    match text.split(',').map(str::parse).collect::<Result<Vec<T>, _>>() {
        Ok(values) => {
            into.extend(values);
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn texts<T: Display>(values: &[T]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_concerns_us_is_read() {
        let read = Arguments::read(
            "MESH_NETWORK=back;MESH_SERVICE=web;MESH_ALIAS=a,b;MESH_ALIAS=c;MESH_WEIGHT=7;MESH_PUBLISH=8080:80;\
             MESH_PUBLISH=published=53,target=53,protocol=udp;IP=10.10.3.9/24,fd00::9;MAC=02:00:00:00:00:09;argA=foo",
        )
        .unwrap();
        assert_eq!((read.service.as_deref(), read.weight), (Some("web"), Some(7)));
        assert_eq!(read.network.as_deref(), Some("back"));
        assert_eq!(texts(&read.aliases), ["a", "b", "c"]);
        assert_eq!(texts(&read.publish), ["8080:80/tcp", "53:53/udp"]);
        assert_eq!(texts(&read.addresses), ["10.10.3.9", "fd00::9"]);
        assert_eq!(read.mac.unwrap().to_string(), "02:00:00:00:00:09");
        assert_eq!(read.name, None);
        assert_eq!(Arguments::read("").unwrap(), Arguments::default());
    }

    #[test]
    fn a_pod_gives_its_name() {
        let name = |text: &str| Arguments::read(text).unwrap().name.map(String::from);
        assert_eq!(name("K8S_POD_NAME=web;K8S_POD_NAMESPACE=web").as_deref(), Some("web"));
        assert_eq!(name("K8S_POD_NAME=web;K8S_POD_NAMESPACE=default").as_deref(), Some("web"));
        assert_eq!(name("K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop").as_deref(), Some("web.shop"));
        assert_eq!(name("K8S_POD_NAME=web;MESH_NAME=db").as_deref(), Some("db"));
        assert_eq!(name("K8S_POD_NAME=not a name"), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for bad in [
            "MESH_SERVICE",
            "MESH_NAME=a b",
            "MESH_ALIAS=a,,b",
            "MESH_ALIAS=a,b..c",
            "MESH_WEIGHT=0",
            "MESH_WEIGHT=101",
            "MESH_PUBLISH=80",
            "MESH_PUBLISH=80:x",
            "IP=10.10.3",
            "MAC=02",
            "MESH_NETWORKS=prod",
        ] {
            let error = Arguments::read(bad).unwrap_err();
            let key = bad.split('=').next().unwrap();
            assert_eq!(error.code, Code::Environment, "{bad}");
            assert!(error.details.contains("CNI_ARGS") && error.details.contains(key), "{bad}: {error}");
        }
        assert!(Arguments::read("IgnoreUnknown=1;MESH_NETWORKS=prod").is_ok());
    }
}
