//! Errors: the specification's codes, and words that the runtime's user understands.

use serde_json::{Value, json};
use tonic::Code;

use crate::{
    adding::fake,
    fake::Fake,
    plugin::{Call, config},
};

fn add(fake: &Fake, fields: Value) -> Call {
    Call::new("ADD", &config(fake, "1.0.0", fields))
}

#[test]
fn an_error_is_json_on_standard_output() {
    let fake = fake();
    let outcome = add(&fake, json!({"weight": "heavy"})).run();
    assert_eq!(outcome.code, Some(1));
    let wanted = json!({
        "cniVersion": "1.0.0", "code": 7, "msg": "invalid network configuration",
        "details": "\"weight\" is \"heavy\", which is not a weight of 1 to 100",
    });
    assert_eq!(outcome.json, wanted);
    assert_eq!(fake.script(|script| script.attached.len()), 0);
}

#[test]
fn versions_that_are_not_spoken() {
    let fake = fake();
    for version in ["0.3.1", "2.0.0"] {
        let outcome = Call::new("ADD", &config(&fake, version, json!({}))).run();
        assert_eq!(outcome.json["cniVersion"], version);
        let (code, told) = outcome.error();
        assert_eq!(code, 1);
        assert!(told.contains("0.4.0, 1.0.0, 1.1.0"), "{told}");
    }
}

#[test]
fn what_is_no_configuration() {
    let fake = fake();
    for (input, code) in
        [("", 6), ("{", 6), ("\u{0}", 6), ("[]", 1), ("\"prod\"", 1), ("{\"cniVersion\": 1}", 6)]
    {
        let call = Call { input: input.to_owned(), ..add(&fake, json!({})) };
        assert_eq!(call.run().error().0, code, "{input}");
    }
}

#[test]
fn variables() {
    let fake = fake();
    for (name, bad) in [
        ("CNI_COMMAND", ""),
        ("CNI_COMMAND", "UPDATE"),
        ("CNI_CONTAINERID", ""),
        ("CNI_CONTAINERID", "../c1"),
        ("CNI_NETNS", ""),
        ("CNI_NETNS", "/etc/passwd"),
        ("CNI_IFNAME", ""),
        ("CNI_IFNAME", "a name that is too long"),
        ("CNI_ARGS", "MESH_WEIGHT=0"),
        ("CNI_ARGS", "nothing"),
    ] {
        let (code, told) = add(&fake, json!({})).with(name, bad).run().error();
        assert_eq!(code, 4, "{name}={bad}: {told}");
        assert!(told.contains(name), "{name}={bad}: {told}");
    }
    assert_eq!(fake.script(|script| script.attached.len()), 0);
}

#[test]
fn an_alias_that_nobody_could_ask_for() {
    let fake = fake();
    for fields in [
        json!({"aliases": ["a..b"]}),
        json!({"runtimeConfig": {"aliases": {"prod": ["fine", "a..b"]}}}),
        json!({"aliases": ["a-.b"]}),
    ] {
        let (code, told) = add(&fake, fields.clone()).run().error();
        let alias = if told.contains("a-.b") { "a-.b" } else { "a..b" };
        assert_eq!(code, 7, "{told}");
        assert!(told.contains(&format!("\"aliases\": name \"{alias}\"")), "{told}");
        assert_eq!(fake.script(|script| script.attached.len()), 0);
        // What had such an alias before is detached with the same configuration.
        let outcome = Call::new("DEL", &config(&fake, "1.0.0", fields)).run();
        assert_eq!(outcome.code, Some(0), "{}", outcome.json);
    }
}

#[test]
fn a_namespace_that_is_gone() {
    let fake = fake();
    let (code, told) = add(&fake, json!({})).with("CNI_NETNS", "/run/netns/that-is-gone").run().error();
    assert_eq!(code, 3);
    assert!(told.contains("CNI_NETNS is /run/netns/that-is-gone"), "{told}");
}

#[test]
fn addresses_of_other_plugins() {
    let fake = fake();
    let (code, told) = add(&fake, json!({"ipam": {"type": "host-local"}})).run().error();
    assert_eq!(code, 2);
    assert!(told.contains("ipam.type") && told.contains("host-local"), "{told}");
}

#[test]
fn refusals_of_meshd() {
    for (refused, message, code, words) in [
        (Code::NotFound, "no such network: prod", 7, "`meshctl network create --attachable prod`"),
        (Code::NotFound, "no such service: web", 7, "`meshctl service create --network NETWORK web`"),
        (
            Code::FailedPrecondition,
            "network prod is not attachable: only tasks of a service may join it; name one with --service, or create \
             the network with --attachable",
            100,
            "may join it; name one with \"service\" or MESH_SERVICE, or make",
        ),
        (Code::InvalidArgument, "10.9.9.9 is not in 10.10.3.0/24", 7, "10.9.9.9"),
        (Code::AlreadyExists, "address 10.10.3.9 is taken", 100, "10.10.3.9"),
        (Code::FailedPrecondition, "network prod has no free address", 100, "no free address"),
        (Code::Unavailable, "no manager answers", 11, "no manager answers"),
        (Code::Unimplemented, "", 100, "another version"),
        (Code::Internal, "", 100, "nternal"),
    ] {
        let fake = Fake::refusing(refused, message);
        let (got, told) = add(&fake, json!({})).run().error();
        assert_eq!(got, code, "{told}");
        assert!(told.starts_with("cannot attach container c1 to network prod: "), "{told}");
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn a_daemon_that_is_away() {
    let fake = fake();
    let config = config(&fake, "1.0.0", json!({"socket": "/no/such/socket"}));
    for command in ["ADD", "DEL"] {
        let (code, told) = Call::new(command, &config).run().error();
        assert_eq!(code, 11);
        assert!(told.contains("/no/such/socket") && told.contains("systemctl start meshd"), "{told}");
    }
}

#[test]
fn ports_that_cannot_be_opened() {
    let fake = fake();
    let (code, told) = add(&fake, json!({"publish": ["8080:80"]})).run().error();
    assert_eq!(code, 7);
    assert!(told.contains("8080:80/tcp") && told.contains("\"service\""), "{told}");

    let (code, told) = add(&fake, json!({"publish": ["8080:80"], "service": "db"})).run().error();
    assert_eq!(code, 7);
    assert!(told.contains("`meshctl service create --network NETWORK db`"), "{told}");

    let worker = "this node is a worker; ask a manager: n1 (192.168.77.11:2377)";
    let fake = Fake::refusing(Code::FailedPrecondition, worker);
    let (code, told) = add(&fake, json!({"publish": ["8080:80"], "service": "web"})).run().error();
    assert_eq!(code, 100);
    assert!(told.contains(worker) && told.contains("`meshctl publish 8080:80/tcp web`"), "{told}");
    assert_eq!(fake.script(|script| script.attached.len()), 0);
}

#[test]
fn people_are_told_what_it_is() {
    let run = |word: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_mesh-cni")).arg(word).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, told) = run("--version");
    assert_eq!((code, told.trim()), (Some(0), concat!("mesh-cni ", env!("CARGO_PKG_VERSION"))));
    let (code, told) = run("--help");
    assert!(code == Some(0) && told.contains("/etc/cni/net.d"), "{told}");
    assert_eq!(run("add").0, Some(2));
}
