//! DEL, CHECK, GC, STATUS and VERSION.

use mesh_api::v1::TaskInterface;
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    fake::{Fake, Script},
    plugin::{Call, config, namespace},
};

fn with_owners(owners: &[&str]) -> Fake {
    let interface = TaskInterface {
        mac: "00:00:00:00:00:00".to_owned(),
        addresses: vec!["127.0.0.1/8".to_owned()],
        ..Default::default()
    };
    let owners = owners.iter().map(|&owner| owner.to_owned()).collect();
    Fake::start(Script { interface, owners, ..Script::default() })
}

#[test]
fn versions() {
    for (input, answered) in [(json!({"cniVersion": "1.0.0"}).to_string(), "1.0.0"), (String::new(), "1.1.0")]
    {
        let call = Call { variables: vec![("CNI_COMMAND", "VERSION".to_owned())], input };
        let wanted = json!({"cniVersion": answered, "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]});
        assert_eq!(call.run().result(), wanted);
    }
}

#[test]
fn del_can_be_done_again_and_without_a_namespace() {
    let fake = with_owners(&["cni:prod/c1/eth0"]);
    let del = Call::new("DEL", &config(&fake, "1.0.0", json!({})));
    assert_eq!(del.run().result(), Value::Null);
    assert_eq!(del.clone().with("CNI_NETNS", "").run().result(), Value::Null);
    assert_eq!(del.with("CNI_NETNS", "/run/netns/that-is-gone").run().result(), Value::Null);
    assert_eq!(fake.script(|script| script.detached.clone()), ["cni:prod/c1/eth0"; 3]);
}

#[test]
fn del_succeeds_where_nothing_can_be_left() {
    let inactive = Fake::start(Script { inactive: true, ..Script::default() });
    assert_eq!(Call::new("DEL", &config(&inactive, "1.0.0", json!({}))).run().result(), Value::Null);
    let unknown = Fake::refusing(Code::NotFound, "no such task");
    assert_eq!(Call::new("DEL", &config(&unknown, "1.0.0", json!({}))).run().result(), Value::Null);
    let failing = Fake::refusing(Code::Internal, "cannot remove msh0000002a");
    let (code, told) = Call::new("DEL", &config(&failing, "1.0.0", json!({}))).run().error();
    assert_eq!(code, 100);
    assert!(told.contains("msh0000002a") && told.contains("c1") && told.contains("prod"), "{told}");
}

/// Loopback stands for the container's interface: every namespace has it.
fn check(fake: &Fake, previous: Value) -> Call {
    let config = config(fake, "1.0.0", json!({"prevResult": previous}));
    Call::new("CHECK", &config).with("CNI_IFNAME", "lo")
}

fn previous() -> Value {
    json!({
        "interfaces": [{"name": "msh1"}, {"name": "lo", "sandbox": namespace()}],
        "ips": [{"address": "127.0.0.1/8", "interface": 1}],
    })
}

#[test]
fn check_compares_result_daemon_and_namespace() {
    let fake = with_owners(&["cni:prod/c1/lo"]);
    assert_eq!(check(&fake, previous()).run().result(), Value::Null);

    let mut other = previous();
    other["ips"][0]["address"] = json!("127.0.0.2/8");
    let (code, told) = check(&fake, other).run().error();
    assert_eq!(code, 101);
    assert!(told.contains("127.0.0.1/8"), "{told}");

    fake.script(|script| script.interface.addresses.push("10.10.3.5/24".to_owned()));
    let (code, told) = check(&fake, previous()).run().error();
    assert_eq!(code, 101);
    assert!(told.contains("lo has not the address 10.10.3.5/24"), "{told}");
}

#[test]
fn check_of_what_is_not_there() {
    let fake = with_owners(&[]);
    assert_eq!(check(&fake, previous()).run().error().0, 3);
    assert_eq!(check(&fake, previous()).with("CNI_NETNS", "/run/netns/that-is-gone").run().error().0, 3);
    let without = Call::new("CHECK", &config(&fake, "1.0.0", json!({})));
    let (code, told) = without.run().error();
    assert_eq!(code, 7);
    assert!(told.contains("prevResult"), "{told}");
}

#[test]
fn gc_removes_what_the_runtime_does_not_know() {
    let stale = ["cni:prod/c2/eth0", "cni:prod/c1/eth1"];
    let others = ["cni:prod/c1/eth0", "cni:prod2/c9/eth0", "docker:c9", ""];
    let fake = with_owners(&[stale, [others[0], others[1]]].concat());
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]});
    let gc = |fields: Value| {
        let call = Call::new("GC", &config(&fake, "1.1.0", fields));
        call.with("CNI_CONTAINERID", "").with("CNI_NETNS", "").with("CNI_IFNAME", "").run()
    };
    assert_eq!(gc(valid).result(), Value::Null);
    assert_eq!(fake.script(|script| script.detached.clone()), stale);
    // Without a list nothing is removed; with an empty one all of the network's.
    assert_eq!(gc(json!({})).error().0, 7);
    assert_eq!(gc(json!({"cni.dev/valid-attachments": []})).result(), Value::Null);
    assert_eq!(fake.script(|script| script.owners.clone()), ["cni:prod2/c9/eth0"]);
}

#[test]
fn gc_goes_on_past_errors_and_tells_them() {
    let fake = Fake::start(Script {
        refusal: Some((Code::Internal, "stuck".to_owned())),
        owners: vec!["cni:prod/c1/eth0".to_owned(), "cni:prod/c2/eth0".to_owned()],
        ..Script::default()
    });
    let call = Call::new("GC", &config(&fake, "1.1.0", json!({"cni.dev/valid-attachments": []})));
    let (code, told) = call.run().error();
    assert_eq!(code, 101);
    assert!(told.contains("c1/eth0: stuck") && told.contains("c2/eth0: stuck"), "{told}");
}

#[test]
fn status_tells_why_not() {
    let status = |fake: &Fake, fields: Value| {
        Call::new("STATUS", &config(fake, "1.1.0", fields)).with("CNI_IFNAME", "").run()
    };
    let fake = with_owners(&[]);
    assert_eq!(status(&fake, json!({"service": "web"})).result(), Value::Null);
    for (fields, word) in
        [(json!({"network": "other"}), "network: other"), (json!({"service": "db"}), "service: db")]
    {
        let (code, told) = status(&fake, fields).error();
        assert_eq!(code, 50);
        assert!(told.contains(word) && told.contains("meshctl"), "{told}");
    }
    fake.script(|script| script.inactive = true);
    let (code, told) = status(&fake, json!({})).error();
    assert_eq!(code, 50);
    assert!(told.contains("meshctl join"), "{told}");
    let (code, told) = status(&fake, json!({"socket": "/no/such/socket"})).error();
    assert_eq!(code, 50);
    assert!(told.contains("/no/such/socket") && told.contains("systemctl start meshd"), "{told}");
}

#[test]
fn gc_and_status_came_with_the_newest_version() {
    let fake = with_owners(&[]);
    for command in ["GC", "STATUS"] {
        let (code, told) = Call::new(command, &config(&fake, "1.0.0", json!({}))).run().error();
        assert_eq!(code, 1);
        assert!(told.contains("1.1.0") && told.contains("1.0.0"), "{told}");
    }
}
