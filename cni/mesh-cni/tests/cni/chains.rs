//! The plugin among others, by the examples of the specification's appendix.

use serde_json::{Value, json};

use crate::{
    adding::fake,
    plugin::{Call, config, namespace},
};

/// What the appendix has the plugin `bridge` answer.
fn of_bridge() -> Value {
    json!({
        "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 2}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "interfaces": [
            {"name": "cni0", "mac": "00:11:22:33:44:55"},
            {"name": "veth3243", "mac": "55:44:33:22:11:11"},
            {"name": "eth0", "mac": "99:88:77:66:55:44", "sandbox": namespace()},
        ],
        "dns": {"nameservers": ["10.1.0.1"], "domain": "one.example"},
    })
}

#[test]
fn behind_a_bridge_it_adds_an_interface_of_its_own() {
    let fake = fake();
    let fields = json!({"name": "dbnet", "network": "prod", "interface": "mesh0", "prevResult": of_bridge()});
    let result =
        Call::new("ADD", &config(&fake, "1.1.0", fields)).with("CNI_ARGS", "argA=foo").run().result();
    let asked = fake.script(|script| script.attached.remove(0));
    assert_eq!((asked.interface.as_str(), asked.owner.as_str()), ("mesh0", "cni:dbnet/c1/eth0"));

    let before = of_bridge();
    assert_eq!(result["cniVersion"], "1.1.0");
    let interfaces = result["interfaces"].as_array().unwrap();
    assert_eq!(interfaces[..3], before["interfaces"].as_array().unwrap()[..]);
    assert_eq!((&interfaces[3]["name"], &interfaces[4]["name"]), (&json!("msh0000002a"), &json!("mesh0")));
    assert_eq!(result["ips"][0], before["ips"][0]);
    assert_eq!(result["ips"][1], json!({"interface": 4, "address": "10.10.3.5/24", "gateway": "10.10.3.1"}));
    // The bridge has the way out over IPv4.
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd00::1"}]));
    assert_eq!(result["dns"]["nameservers"], json!(["127.0.0.11"]));
    assert_eq!(result["dns"]["domain"], "one.example");
    assert_eq!(result["dns"]["search"], json!(["corp.example"]));
}

#[test]
fn behind_plugins_that_make_no_interface_it_makes_the_runtimes() {
    let fake = fake();
    let previous = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "cni0"}], "ips": null});
    let result = Call::new("ADD", &config(&fake, "1.0.0", json!({"prevResult": previous}))).run().result();
    assert_eq!(result["interfaces"][2]["name"], "eth0");
    assert_eq!(result["ips"][0]["interface"], 2);
}

#[test]
fn an_interface_that_is_there_is_not_taken() {
    let fake = fake();
    let config = config(&fake, "1.1.0", json!({"prevResult": of_bridge()}));
    let (code, told) = Call::new("ADD", &config).run().error();
    assert_eq!(code, 7);
    assert!(told.contains("eth0") && told.contains("\"interface\""), "{told}");
    assert_eq!(fake.script(|script| script.attached.len()), 0);
}
