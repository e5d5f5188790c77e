//! Other VXLAN devices on our port, and offloads that are known to break the checksums of what is inside VXLAN.

use std::process::Command;

use mesh_types::VXLAN_PORT;
use serde_json::Value;

use super::{Finding, Told};

/// The node's own device.
const OWN: &str = "mesh-vxlan";
/// Drivers that take every packet to port 4789 for their own switch's VXLAN, and send what they were to complete unfinished.
const DOUBTFUL: [&str; 1] = ["vmxnet3"];

/// All of it.
pub fn check(told: &Told, findings: &mut Vec<Finding>) {
    const NAME: &str = "VXLAN port";
    match output("ip", &["-json", "-details", "link", "show", "type", "vxlan"]) {
        None => findings
            .push(Finding::unchecked(NAME, "`ip` is not installed, or does not tell of VXLAN devices")),
        Some(text) => {
            let others = others(&text);
            findings.extend(others.iter().map(|name| {
                Finding::warning(
                    NAME,
                    format!("{name} uses {VXLAN_PORT}/udp too: what comes for it is dropped as of an unknown sender"),
                    format!("give it another port, or remove it: `ip link del {name}`"),
                )
            }));
            if others.is_empty() {
                findings.push(Finding::ok(NAME, format!("nobody else uses {VXLAN_PORT}/udp")));
            }
        }
    }
    for uplink in told.status.data_path.iter().flat_map(|path| &path.uplinks) {
        findings.push(offloads(&uplink.interface));
    }
}

/// VXLAN devices that are not ours and use our port, from `ip -json -details link`.
fn others(text: &str) -> Vec<String> {
    let links: Value = serde_json::from_str(text).unwrap_or_default();
    let links = links.as_array().into_iter().flatten();
    let same = links.filter(|link| link["linkinfo"]["info_data"]["port"].as_u64() == Some(VXLAN_PORT.into()));
    same.filter_map(|link| link["ifname"].as_str()).filter(|name| *name != OWN).map(str::to_owned).collect()
}

fn offloads(interface: &str) -> Finding {
    let check = format!("offloads {interface}");
    let (Some(driver), Some(features)) =
        (output("ethtool", &["-i", interface]), output("ethtool", &["-k", interface]))
    else {
        return Finding::unchecked(check, "`ethtool` is not installed, or does not know the interface");
    };
    let driver = driver.lines().find_map(|line| line.strip_prefix("driver: ")).unwrap_or_default();
    let on: Vec<&str> = tunnel_offloads(&features);
    match DOUBTFUL.contains(&driver) && !on.is_empty() {
        true => Finding::warning(
            check,
            format!(
                "{driver} completes packets inside VXLAN itself ({}), and may send wrong checksums: TCP hangs, ping works",
                on.join(", ")
            ),
            format!(
                "`ethtool -K {interface} {}`",
                on.iter().map(|name| format!("{name} off")).collect::<Vec<_>>().join(" ")
            ),
        ),
        false => Finding::ok(check, format!("none of {driver} is known to break checksums")),
    }
}

fn tunnel_offloads(features: &str) -> Vec<&str> {
    let lines = features.lines().filter_map(|line| line.trim().split_once(": "));
    lines
        .filter(|(name, state)| name.starts_with("tx-udp_tnl") && *state == "on")
        .map(|(name, _)| name)
        .collect()
}

/// What a program prints; none if it is not there or fails.
pub fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_devices_on_the_port() {
        let link = |name: &str, port: u16| {
            format!(
                r#"{{"ifname":"{name}","linkinfo":{{"info_kind":"vxlan","info_data":{{"port":{port}}}}}}}"#
            )
        };
        let text = format!("[{},{},{}]", link(OWN, 4789), link("flannel.1", 8472), link("vx0", 4789));
        assert_eq!(others(&text), ["vx0"]);
        assert!(others("").is_empty());
    }

    #[test]
    fn offloads_that_are_on() {
        let text = "Features for eth0:\ntx-udp_tnl-segmentation: on\ntx-udp_tnl-csum-segmentation: off [fixed]\nrx: on\n";
        assert_eq!(tunnel_offloads(text), ["tx-udp_tnl-segmentation"]);
    }
}
