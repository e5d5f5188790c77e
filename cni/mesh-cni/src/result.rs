//! The answer to ADD: what was made, together with what the plugins before this one have made.

use ipnet::IpNet;
use mesh_api::v1::{AttachResponse, TaskInterface};
use serde_json::{Map, Value, json};

use crate::{
    config::Config,
    error::{CniError, Code},
    version::SpecVersion,
};

/// The result of `attached` in the namespace at `sandbox`, as the runtime named it.
pub fn result(config: &Config, sandbox: &str, attached: &AttachResponse) -> Result<Value, CniError> {
    let mut result = match &config.prev_result {
        Some(Value::Object(previous)) => previous.clone(),
        _ => Map::new(),
    };
    result.insert("cniVersion".to_owned(), json!(config.version.to_string()));
    for interface in &attached.interfaces {
        add_interface(&mut result, config.version, sandbox, interface)?;
    }
    result.insert("dns".to_owned(), dns(result.get("dns"), attached));
    Ok(Value::Object(result))
}

fn add_interface(
    result: &mut Map<String, Value>,
    version: SpecVersion,
    sandbox: &str,
    made: &TaskInterface,
) -> Result<(), CniError> {
    let mut host = json!({ "name": made.host_interface });
    let mut inner = json!({ "name": made.interface, "mac": made.mac, "sandbox": sandbox });
    if version >= SpecVersion::V1_1_0 {
        host["mtu"] = json!(made.mtu);
        inner["mtu"] = json!(made.mtu);
    }
    let index = add(result, "interfaces", [host, inner]) + 1;
    for address in &made.addresses {
        let net: IpNet = address.parse().map_err(|_| nonsense(address))?;
        let is_v6 = net.addr().is_ipv6();
        let mut ip = json!({ "interface": index, "address": address });
        if let Some(gateway) = made.gateways.iter().find(|gateway| gateway.contains(':') == is_v6) {
            ip["gateway"] = json!(gateway);
        }
        if version < SpecVersion::V1_0_0 {
            ip["version"] = json!(if is_v6 { "6" } else { "4" });
        }
        add(result, "ips", [ip]);
    }
    for gateway in &made.default_routes {
        let dst = if gateway.contains(':') { "::/0" } else { "0.0.0.0/0" };
        // One that a plugin before this one has made stays, and there is none beside it.
        let made = result.get("routes").and_then(Value::as_array).into_iter().flatten();
        if !made.into_iter().any(|route| route["dst"] == dst) {
            add(result, "routes", [json!({ "dst": dst, "gw": gateway })]);
        }
    }
    Ok(())
}

/// meshd's name server answers all: it asks those outside for what it does not know.
fn dns(previous: Option<&Value>, attached: &AttachResponse) -> Value {
    let mut dns = previous.and_then(Value::as_object).cloned().unwrap_or_default();
    dns.insert("nameservers".to_owned(), json!([attached.nameserver]));
    for (key, ours) in [("search", &attached.search), ("options", &attached.options)] {
        let mut all: Vec<Value> = ours.iter().map(|text| json!(text)).collect();
        let before = dns.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        all.extend(before.into_iter().filter(|value| !ours.iter().any(|text| value == text)));
        if !all.is_empty() {
            dns.insert(key.to_owned(), Value::Array(all));
        }
    }
    Value::Object(dns)
}

/// Adds to the list in the field `key`, and makes it where there is none; how many there were before.
fn add(result: &mut Map<String, Value>, key: &str, values: impl IntoIterator<Item = Value>) -> usize {
    let mut list = match result.remove(key) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let before = list.len();
    list.extend(values);
    result.insert(key.to_owned(), Value::Array(list));
    before
}

fn nonsense(text: &str) -> CniError {
    CniError::new(Code::Refused, "meshd's answer makes no sense", format!("{text:?} is not an address"))
}
