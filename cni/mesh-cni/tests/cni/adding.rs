//! ADD: what is asked of meshd, and what the runtime is answered.

use mesh_api::v1::{self, attach_request::Namespace};
use serde_json::{Value, json};

use crate::{
    fake::{Fake, Script},
    plugin::{Call, config, namespace},
};

/// As meshd makes it on a network of both families.
pub fn interface() -> v1::TaskInterface {
    v1::TaskInterface {
        network: "prod".to_owned(),
        host_interface: "msh0000002a".to_owned(),
        mac: "02:42:0a:0a:03:05".to_owned(),
        addresses: vec!["10.10.3.5/24".to_owned(), "fd00::5/64".to_owned()],
        gateways: vec!["10.10.3.1".to_owned(), "fd00::1".to_owned()],
        default_routes: vec!["10.10.3.1".to_owned(), "fd00::1".to_owned()],
        mtu: 1450,
        ..Default::default()
    }
}

pub fn fake() -> Fake {
    Fake::start(Script { interface: interface(), ..Script::default() })
}

fn add(fake: &Fake, version: &str, fields: Value) -> Value {
    Call::new("ADD", &config(fake, version, fields)).run().result()
}

#[test]
fn the_result_is_of_the_version_asked_by() {
    let fake = fake();
    let dns = json!({"nameservers": ["127.0.0.11"], "search": ["corp.example"], "options": ["ndots:0"]});
    let routes = json!([{"dst": "0.0.0.0/0", "gw": "10.10.3.1"}, {"dst": "::/0", "gw": "fd00::1"}]);
    let newest = json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "msh0000002a", "mtu": 1450},
            {"name": "eth0", "mac": "02:42:0a:0a:03:05", "mtu": 1450, "sandbox": namespace()},
        ],
        "ips": [
            {"interface": 1, "address": "10.10.3.5/24", "gateway": "10.10.3.1"},
            {"interface": 1, "address": "fd00::5/64", "gateway": "fd00::1"},
        ],
        "routes": routes,
        "dns": dns,
    });
    assert_eq!(add(&fake, "1.1.0", json!({})), newest);

    let mut before = newest;
    before["cniVersion"] = json!("1.0.0");
    for interface in before["interfaces"].as_array_mut().unwrap() {
        interface.as_object_mut().unwrap().remove("mtu");
    }
    assert_eq!(add(&fake, "1.0.0", json!({})), before);

    let mut first = before;
    first["cniVersion"] = json!("0.4.0");
    first["ips"][0]["version"] = json!("4");
    first["ips"][1]["version"] = json!("6");
    assert_eq!(add(&fake, "0.4.0", json!({})), first);
}

#[test]
fn an_internal_network_has_no_way_out() {
    let made = v1::TaskInterface { default_routes: Vec::new(), ..interface() };
    let fake = Fake::start(Script { interface: made, ..Script::default() });
    assert_eq!(add(&fake, "1.0.0", json!({})).get("routes"), None);
}

#[test]
fn little_is_asked_where_little_is_said() {
    let fake = fake();
    add(&fake, "1.0.0", json!({}));
    let asked = fake.script(|script| script.attached.clone());
    let wanted = v1::AttachRequest {
        namespace: Some(Namespace::Path(namespace())),
        networks: vec!["prod".to_owned()],
        dns: Some(v1::TaskDns::default()),
        owner: "cni:prod/c1/eth0".to_owned(),
        interface: "eth0".to_owned(),
        ..Default::default()
    };
    assert_eq!(asked, [wanted]);
}

#[test]
fn all_that_is_said_is_asked() {
    let fake = fake();
    let fields = json!({
        "name": "shop", "network": "prod", "service": "file", "aliases": ["one"], "weight": 3, "address": "10.10.3.9",
        "dns": {"nameservers": ["192.0.2.53"], "search": ["a.example"], "options": ["ndots:2"]},
        "runtimeConfig": {
            "ips": ["10.10.3.11/24"], "mac": "02:00:00:00:00:0b", "aliases": {"shop": ["two"]},
            "dns": {"servers": ["192.0.2.54"]},
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}],
        },
    });
    let args = "IgnoreUnknown=true;K8S_POD_NAME=shop-1;K8S_POD_NAMESPACE=shop-1;MESH_NETWORK=back;MESH_SERVICE=web;\
                MESH_ALIAS=three;MESH_WEIGHT=5;IP=10.10.3.12;MAC=02:00:00:00:00:0c;argA=foo";
    Call::new("ADD", &config(&fake, "1.1.0", fields)).with("CNI_ARGS", args).run().result();
    let asked = fake.script(|script| script.attached.remove(0));
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    assert_eq!((asked.service.as_str(), asked.name.as_str(), asked.weight), ("web", "shop-1", 5));
    assert_eq!(asked.networks, ["back"]);
    assert_eq!(asked.aliases, ["one", "two", "three"]);
    assert_eq!(asked.addresses, ["10.10.3.11"]);
    assert_eq!(asked.mac, "02:00:00:00:00:0b");
    assert_eq!(asked.owner, "cni:shop/c1/eth0");
    let ports: Vec<_> = asked.host_ports.iter().map(|p| (p.published, p.target, p.mode())).collect();
    assert_eq!(ports, [(8080, 80, v1::PublishMode::Host)]);
    let dns = asked.dns.unwrap();
    let wanted = v1::TaskDns {
        servers: texts(&["192.0.2.54"]),
        search: texts(&["a.example"]),
        options: texts(&["ndots:2"]),
        hostname: String::new(),
    };
    assert_eq!(dns, wanted);
}

#[test]
fn ports_of_the_service_are_open_first() {
    let fake = fake();
    let fields = json!({"service": "web", "publish": ["8080:80"]});
    add(&fake, "1.0.0", fields.clone());
    let asked = fake.script(|script| std::mem::take(&mut script.published));
    assert_eq!((asked.len(), asked[0].service.as_str()), (1, "web"));
    assert_eq!((asked[0].ports[0].published, asked[0].ports[0].target), (8080, 80));

    // Those that are open are not asked for again.
    fake.script(|script| script.ports.clone_from(&asked[0].ports));
    add(&fake, "1.0.0", fields);
    assert_eq!(fake.script(|script| script.published.len()), 0);

    let args = config(&fake, "1.0.0", json!({"service": "web", "publish": ["8080:80"]}));
    Call::new("ADD", &args).with("CNI_ARGS", "MESH_PUBLISH=9090:90/udp").run().result();
    let more = fake.script(|script| std::mem::take(&mut script.published));
    assert_eq!(more[0].ports.iter().map(|port| port.published).collect::<Vec<_>>(), [9090]);
}

#[test]
fn a_port_that_another_container_opened_meanwhile_is_open() {
    let fake = Fake::start(Script { interface: interface(), published_meanwhile: true, ..Script::default() });
    add(&fake, "1.0.0", json!({"service": "web", "publish": ["8080:80"]}));
    assert_eq!(fake.script(|script| script.attached.len()), 1);
}
