use serde_json::json;

use super::*;

/// A configuration with further fields.
fn with(fields: Value) -> Value {
    let mut config = json!({ "cniVersion": "1.1.0", "name": "prod", "type": "mesh-cni" });
    let (config_fields, fields) = (config.as_object_mut().unwrap(), fields.as_object().unwrap());
    config_fields.extend(fields.clone());
    config
}

fn read(fields: Value) -> Config {
    Config::read(&with(fields)).unwrap()
}

#[test]
fn little_is_needed() {
    let config = read(json!({}));
    assert_eq!((config.name.as_str(), config.network.as_str()), ("prod", "prod"));
    assert_eq!(config.socket, PathBuf::from("/run/meshd/meshd.sock"));
    assert_eq!(config.addresses, Vec::<IpAddr>::new());
    // What is not known is somebody else's, and null is nothing.
    let more =
        read(json!({ "keyA": ["x"], "ipMasq": true, "ipam": {}, "service": null, "capabilities": {} }));
    assert_eq!(more, config);
}

#[test]
fn all_fields() {
    let config = read(json!({
        "network": "back", "service": "web", "aliases": ["w"], "address": "10.10.3.9/24", "addresses": ["fd00::9"],
        "publish": ["8080:80", "9000-9001:9000-9001/udp"], "socket": "/s", "weight": 5, "interface": "mesh0",
        "dns": {"nameservers": ["192.0.2.53"], "domain": "one.example", "options": ["ndots:2"]},
    }));
    assert_eq!((config.network.as_str(), config.service.as_deref()), ("back", Some("web")));
    assert_eq!((config.weight, config.interface.unwrap().as_str()), (Some(5), "mesh0"));
    assert_eq!(config.addresses, ["10.10.3.9", "fd00::9"].map(|a| a.parse::<IpAddr>().unwrap()));
    let ports: Vec<String> = config.publish.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["8080:80/tcp", "9000:9000/udp", "9001:9001/udp"]);
    assert_eq!(config.dns.search[0].as_str(), "one.example");
}

#[test]
fn the_runtime_comes_before_the_file() {
    let config = read(json!({
        "address": "10.10.3.9", "aliases": ["file"],
        "dns": {"nameservers": ["192.0.2.53"], "search": ["file.example"]},
        "args": {"cni": {"ips": ["10.10.3.10"]}},
        "runtimeConfig": {
            "ips": ["10.10.3.11/24"], "mac": "02:00:00:00:00:0b", "aliases": ["runtime"],
            "dns": {"servers": ["192.0.2.54"], "searches": [], "options": ["use-vc"]},
        },
    }));
    assert_eq!(config.addresses, ["10.10.3.11".parse::<IpAddr>().unwrap()]);
    let aliases: Vec<&str> = config.aliases.iter().map(Name::as_str).collect();
    assert_eq!(aliases, ["file", "runtime"]);
    assert_eq!(config.mac.unwrap().to_string(), "02:00:00:00:00:0b");
    assert_eq!(config.dns.servers[0].to_string(), "192.0.2.54");
    assert_eq!(config.dns.search[0].as_str(), "file.example");
    let args = read(json!({"address": "10.10.3.9", "args": {"cni": {"ips": ["10.10.3.10"]}}}));
    assert_eq!(args.addresses, ["10.10.3.10".parse::<IpAddr>().unwrap()]);
    let podman = read(json!({"runtimeConfig": {"aliases": {"prod": ["a"], "other": ["b"]}}}));
    assert_eq!(podman.aliases, ["a".parse::<Name>().unwrap()]);
}

#[test]
fn port_mappings_of_runtimes() {
    let mappings = |given: Value| read(json!({"runtimeConfig": {"portMappings": given}})).port_mappings;
    let read = mappings(json!([
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "10.0.0.1"},
        {"hostPort": 81, "containerPort": 81, "hostIP": "0.0.0.0"},
        {"hostPort": 81, "containerPort": 81, "hostIP": "::"},
        {"hostPort": 0, "containerPort": 9000},
    ]));
    let texts: Vec<String> = read.iter().map(ToString::to_string).collect();
    let wanted = ["8080:80/tcp,mode=host", "10.0.0.1:53:5353/udp,mode=host", "81:81/tcp,mode=host"];
    assert_eq!(texts, wanted);
    assert_eq!(mappings(json!([])), []);
}

#[test]
fn a_wrong_field_is_named_with_what_it_holds() {
    for (field, value, word) in [
        ("name", json!(7), "7"),
        ("name", json!(""), "missing"),
        ("name", json!("a/b"), "a/b"),
        ("network", json!(["prod"]), "prod"),
        ("service", json!(1), "1"),
        ("aliases", json!("web"), "web"),
        ("aliases", json!(["web", "a b"]), "a b"),
        ("address", json!("10.10.3"), "10.10.3"),
        ("addresses", json!(["fd00::1::2"]), "fd00::1::2"),
        ("publish", json!("8080:80"), "8080:80"),
        ("publish", json!(["80"]), "8080:80"),
        ("publish", json!(["80:http"]), "http"),
        ("socket", json!(true), "true"),
        ("interface", json!("a/b"), "a/b"),
        ("weight", json!(0), "1 to 100"),
        ("weight", json!(101), "101"),
        ("weight", json!("heavy"), "heavy"),
        ("dns", json!([]), "object"),
        ("dns.nameservers", json!({"nameservers": ["dns.example"]}), "dns.example"),
        ("dns.search", json!({"search": ["a..b"]}), "a..b"),
        ("dns.options", json!({"options": ["ndot:1"]}), "ndot:1"),
        ("runtimeConfig", json!("x"), "object"),
        ("runtimeConfig.ips", json!({"ips": ["10.10.3.300"]}), "10.10.3.300"),
        ("runtimeConfig.mac", json!({"mac": "02:00"}), "02:00"),
        ("runtimeConfig.aliases", json!({"aliases": {"prod": 3}}), "3"),
        ("runtimeConfig.portMappings", json!({"portMappings": {}}), "list"),
        ("runtimeConfig.portMappings", json!({"portMappings": ["80"]}), "80"),
        ("runtimeConfig.portMappings", json!({"portMappings": [{"hostPort": 70000}]}), "70000"),
        ("runtimeConfig.portMappings", json!({"portMappings": [{"hostPort": 80}]}), "containerPort"),
        (
            "runtimeConfig.portMappings",
            json!({"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]}),
            "icmp",
        ),
        (
            "runtimeConfig.portMappings",
            json!({"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "here"}]}),
            "here",
        ),
        (
            "runtimeConfig.portMappings",
            json!({"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "224.0.0.1"}]}),
            "not the address of a node",
        ),
        ("runtimeConfig.dns.servers", json!({"dns": {"servers": ["127.0.0.11"]}}), "127.0.0.11"),
        ("args.cni.ips", json!({"cni": {"ips": ["x"]}}), "x"),
        ("prevResult", json!([]), "object"),
        ("cni.dev/valid-attachments", json!([{"containerID": "c1"}]), "ifname"),
    ] {
        // `a.b` of `runtimeConfig` and others is inside the value.
        let whole = ["runtimeConfig", "args", "dns"]
            .into_iter()
            .find(|part| field.strip_prefix(part).is_some_and(|rest| rest.starts_with('.')));
        let key = whole.unwrap_or(field);
        let error = Config::read(&with(json!({ key: value }))).unwrap_err();
        assert_eq!(error.code, Code::Config, "{field}: {error}");
        assert!(error.details.contains(&format!("\"{field}\"")), "{field}: {error}");
        assert!(error.details.contains(word), "{field}: {error}");
    }
}

#[test]
fn what_cannot_be_done_is_said_so() {
    let error = Config::read(&with(json!({"ipam": {"type": "host-local"}}))).unwrap_err();
    assert_eq!(error.code, Code::UnsupportedField);
    assert!(error.details.contains("\"ipam.type\"") && error.details.contains("host-local"), "{error}");
    assert_eq!(Config::read(&json!([1])).unwrap_err().code, Code::Version);
    assert_eq!(Config::read(&json!({"cniVersion": "1.0.0"})).unwrap_err().code, Code::Config);
}

#[test]
fn attachments_that_are_still_there() {
    let of = |key: &str| {
        let config = read(json!({ key: [{"containerID": "c1", "ifname": "eth0"}] }));
        config.valid_attachments.unwrap()
    };
    let wanted = [("c1".to_owned(), "eth0".to_owned())];
    assert_eq!(of("cni.dev/valid-attachments"), wanted);
    assert_eq!(of("cni.dev/attachments"), wanted);
    assert_eq!(read(json!({})).valid_attachments, None);
    assert_eq!(read(json!({"cni.dev/valid-attachments": []})).valid_attachments, Some(vec![]));
}
