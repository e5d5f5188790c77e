//! Files, events, and the verbs that change networks and services: what the daemon is asked, and what is printed.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use crate::{
    data::{DB, PROD, TASK_WEB_1, WEB},
    fake::{Fake, Outcome, Script},
};

fn fake() -> Fake {
    Fake::start(Script::default())
}

/// What the daemon was asked by `words`, and what was printed.
fn asked(words: &str) -> (String, String) {
    let fake = fake();
    let printed = fake.print(words);
    (fake.asked().join("\n"), printed)
}

/// Applies `text` with further words.
fn apply(fake: &Fake, text: &str, words: &str) -> Outcome {
    let file = fake.folder().join("mesh.yaml");
    std::fs::write(&file, text).unwrap();
    let option = if words.contains("--compose") { "" } else { "-f" };
    fake.run(&format!("apply {words} {option} {}", file.display()))
}

/// Just what the fake daemon has, but for the free parts.
const SAME: &str = "\
networks:
  prod: {subnets: [10.10.3.0/24]}
  test:
    subnets: [{subnet: 10.10.4.0/24, gateway: 10.10.4.254}]
    attachable: true
    internal: true
    mtu: 1400
    labels: {team: web}
services:
  web: {networks: {prod: {aliases: [www]}}, ports: ['80:80', '8053:53/udp'], affinity: 'client-ip,30m', \
prefer_local: true, drain_timeout: 90s, health: {check: 'http:80/ready', interval: 5s}}
  db: {networks: [prod, test], endpoint_mode: dnsrr, affinity: 'client-ip,30m', prefer_local: true, \
drain_timeout: 90s}
";

#[test]
fn apply_shows_and_makes_the_difference() {
    let fake = fake();
    let told = apply(&fake, SAME, "--prune");
    assert_eq!((told.text.as_str(), told.errors.as_str(), told.code), ("nothing to change\n", "", Some(0)));
    let wanted = SAME.replace("'80:80', ", "'81:80', ").replace("team: web", "team: shop");
    let wanted = wanted.replace("  db:", "  cache:");
    let told = apply(&fake, &wanted, "--prune --dry-run");
    let expected = "\
~ network test
    ~ label team: \"web\" -> \"shop\"
+ service cache
    + network prod
    + network test
    + endpoint mode dnsrr
    + affinity client-ip,30m
    + prefer local
    + drain timeout 1m30s
~ service web
    - port 80:80/tcp
    + port 81:80/tcp
- service db
1 would be created, 2 would be changed, 1 would be removed
";
    assert_eq!((told.text.as_str(), told.errors.as_str()), (expected, ""));
    assert_eq!(fake.asked(), Vec::<String>::new());

    let told = apply(&fake, &wanted, "--prune");
    assert_eq!(told.text, expected.replace("would be ", ""));
    let calls = fake.asked();
    let kinds: Vec<&str> = calls.iter().map(|call| call.split(' ').next().unwrap()).collect();
    let expected = ["UpdateNetworkRequest", "RemoveRequest", "UpdateServiceRequest", "CreateServiceRequest"];
    assert_eq!(kinds, expected);
    assert!(calls[1].contains(DB) && calls[2].contains("expected_version: Some(17)"), "{calls:#?}");
    let json = apply(&fake, &wanted, "--prune --dry-run --format json");
    let json: serde_json::Value = serde_json::from_str(&json.text).unwrap();
    assert_eq!((&json["dry_run"], &json["changes"][1]["action"]), (&true.into(), &"create".into()));
}

#[test]
fn a_file_that_is_wrong_changes_nothing() {
    let fake = fake();
    let told = apply(&fake, "networks:\n  prod: {mtu: 9}\nservices:\n  web: {networks: [x]}\n", "");
    assert_eq!((told.code, told.text.as_str()), (Some(1), ""));
    let lines: Vec<&str> = told.errors.lines().collect();
    assert!(
        lines[0].contains("mesh.yaml:2: network prod") && lines[1].contains("mesh.yaml:4: service web"),
        "{lines:?}"
    );
    let told = apply(&fake, "network: {}\nservices: 1\n", "");
    assert!(
        told.errors.contains(":1: the file has no key network") && told.errors.contains(":2: "),
        "{}",
        told.errors
    );
    assert_eq!(fake.asked(), Vec::<String>::new());
    let told = fake.run("apply -f /no/such/file");
    assert!(told.code == Some(1) && told.errors.contains("/no/such/file"), "{}", told.errors);
    assert_eq!(fake.run("apply").code, Some(2));
    assert_eq!(fake.run("apply -f a --compose b").code, Some(2));

    let refusing = Fake::refusing(tonic::Code::Aborted, "service web was changed meanwhile");
    let told = apply(&refusing, &SAME.replace("'80:80', ", ""), "");
    assert_eq!(told.code, Some(1));
    assert!(told.errors.contains("nothing was changed: cannot update service web"), "{}", told.errors);
}

#[test]
fn a_compose_file_says_what_is_read_over() {
    let fake = fake();
    let text = "networks: {prod: {external: true}}\nservices:\n  api: {image: x, networks: [prod], ports: ['9:9']}\n";
    let told = apply(&fake, text, "--compose");
    assert_eq!(
        told.text,
        "+ service api\n    + network prod\n    + port 9:9/tcp\n1 created, 0 changed, 0 removed\n"
    );
    assert!(
        told.errors.contains("ignored: ") && told.errors.contains(":3: service api: image"),
        "{}",
        told.errors
    );
    assert!(fake.asked()[0].contains("name: \"api\""), "{:?}", fake.asked());
}

#[test]
fn export_writes_what_apply_reads() {
    let fake = fake();
    let text = fake.print("export");
    let expected = "\
version: 1
networks:
  prod:
    subnets:
      - \"10.10.3.0/24\"
  test:
    subnets:
      - subnet: \"10.10.4.0/24\"
        gateway: \"10.10.4.254\"
    attachable: true
    internal: true
    mtu: 1400
    labels:
      team: web
services:
  db:
    networks:
      prod: {}
      test: {}
    endpoint_mode: dnsrr
    affinity: client-ip,30m
    prefer_local: true
    drain_timeout: 1m30s
  web:
    networks:
      prod:
        aliases:
          - www
    ports:
      - \"80:80/tcp\"
      - \"8053:53/udp\"
    affinity: client-ip,30m
    prefer_local: true
    drain_timeout: 1m30s
    health:
      check: \"http:80/ready\"
      interval: 5s
";
    assert_eq!(text, expected);
    assert_eq!(apply(&fake, &text, "--prune").text, "nothing to change\n");
    // By stdin too.
    let mut child =
        fake.command(&["apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "nothing to change\n");
}

#[test]
fn events_are_lines() {
    let fake = fake();
    let told = fake.run("events");
    let expected = "\
2023-11-14T22:13:20.25Z network create prod (id=2net00000000, version=17)
2023-11-14T22:14:20.25Z service update web (id=1svc00000000, version=18, labels=, ports=80:80/tcp 81:81/tcp)
";
    assert_eq!((told.text.as_str(), told.code), (expected, Some(1)));
    assert_eq!(told.errors, "meshctl: events end: this manager stops\n");
    assert!(fake.asked()[0].contains("since_millis: None"));
    assert_eq!(fake.run("events --filter type=service --filter event=create").text, "");
    let told = fake.run("--format json events --since 2023-11-14T00:00:00Z --filter name=web");
    let event: serde_json::Value = serde_json::from_str(told.text.trim()).unwrap();
    assert_eq!((&event["id"], &event["attributes"]["ports"]), (&WEB.into(), &"80:80/tcp 81:81/tcp".into()));
    assert!(fake.asked().last().unwrap().contains("since_millis: Some(1699920000000)"));
}

#[test]
fn networks_change_and_tasks_move_between_them() {
    let (asked_for, printed) = asked(
        "network create --aux-address router=10.20.0.2 --subnet 10.20.0.0/16 --ip-range 10.20.8.0/21 --ingress lab",
    );
    for part in ["aux_addresses: {\"router\": \"10.20.0.2\"}", "ingress: true", "[\"10.20.8.0/21\"]"] {
        assert!(asked_for.contains(part), "{part} in {asked_for}");
    }
    assert_eq!(printed, format!("{PROD}\n"));
    let encrypted = fake().run("network create --opt encrypted x");
    assert!(encrypted.code == Some(2) && encrypted.errors.contains("not encrypted"), "{}", encrypted.errors);
    let (asked_for, printed) = asked("network update --attachable --label-rm a --if-version 4 prod");
    for part in ["expected_version: Some(4)", "attachable: Some(true)", "remove_labels: [\"a\"]"] {
        assert!(asked_for.contains(part), "{part} in {asked_for}");
    }
    assert_eq!(printed, format!("{PROD}\n"));
    assert_eq!(fake().run("network update --if-version 4 prod").code, Some(2));

    let place = "ID             NAME    NETWORK   ADDRESS\n1task0000000   web.1   prod      10.10.3.3\n";
    let (asked_for, printed) = asked("network connect --ip 10.10.4.9 --alias db test web.1");
    assert!(asked_for.contains("[\"10.10.4.9\"]") && asked_for.contains("aliases: [\"db\"]"), "{asked_for}");
    assert_eq!(printed, place);
    let (asked_for, printed) = asked("network disconnect test web.1");
    assert!(asked_for.starts_with("DisconnectNetworkRequest"), "{asked_for}");
    assert_eq!(printed, place);
    assert_eq!(fake().json("network disconnect test web.1")["id"], TASK_WEB_1);
}

#[test]
fn prune_takes_what_nobody_uses() {
    // All of them are in use.
    assert_eq!(asked("network prune --force"), (String::new(), String::new()));
    assert_eq!(fake().print("network prune"), "");
}

/// At a terminal, which `script` plays; what is typed comes from its standard input.
#[test]
fn prune_asks_whoever_sits_there() {
    for (typed, removed) in [("y\n", true), ("yes\n", true), ("n\n", false), ("\n", false)] {
        let fake = Fake::start(Script { spare: true, ..Script::default() });
        let refused = fake.run("network prune");
        assert_eq!(refused.code, Some(2), "{}", refused.errors);
        assert!(refused.errors.contains("spare") && refused.errors.contains("--force"), "{}", refused.errors);
        let line = format!("{:?} --socket {:?} network prune", env!("CARGO_BIN_EXE_meshctl"), fake.socket());
        let mut terminal = Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        terminal.stdin.as_mut().unwrap().write_all(typed.as_bytes()).unwrap();
        let output = terminal.wait_with_output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(shown.contains("Remove spare? [y/N]"), "{shown}");
        assert_eq!(output.status.success(), removed, "{typed:?}: {shown}");
        assert_eq!(fake.asked().len(), usize::from(removed), "{typed:?}: {:?}", fake.asked());
    }
}

#[test]
fn removals_may_expect_a_version() {
    for kind in ["network", "service"] {
        let (asked_for, printed) = asked(&format!("{kind} rm --if-version 4 prod"));
        assert!(asked_for.contains("expected_version: Some(4)"), "{asked_for}");
        assert_eq!(printed, "prod\n");
        let several = fake().run(&format!("{kind} rm --if-version 4 prod test"));
        assert!(several.code == Some(2) && several.errors.contains("just that one"), "{}", several.errors);
    }
}

#[test]
fn services_change_their_networks_names_and_mode() {
    let (asked_for, _) = asked("service create --network name=prod,alias=www --network test --alias all web");
    for part in
        ["network: \"prod\", aliases: [\"www\"]", "network: \"test\", aliases: []", "aliases: [\"all\"]"]
    {
        assert!(asked_for.contains(part), "{part} in {asked_for}");
    }
    let (asked_for, printed) = asked(
        "service update --network-add name=test,alias=t --network-rm prod --alias-add test:x --alias-rm www \
         --endpoint-mode dnsrr --if-version 17 web",
    );
    for part in [
        "expected_version: Some(17)",
        "endpoint_mode: Dnsrr",
        "remove_networks: [\"prod\"]",
        "add_networks: [ServiceAttachment { network: \"test\", aliases: [\"t\"] }]",
        "remove_aliases: [AliasChange { network: \"\", alias: \"www\" }]",
        "add_aliases: [AliasChange { network: \"test\", alias: \"x\" }]",
    ] {
        assert!(asked_for.contains(part), "{part} in {asked_for}");
    }
    assert_eq!(printed, format!("{WEB}\n"));
    for wrong in ["--if-version 3", "--network-add alias=x", "--endpoint-mode both", "--alias-add a b"] {
        assert_eq!(fake().run(&format!("service update {wrong} web")).code, Some(2), "{wrong}");
    }
    assert!(asked("node update --label-add a=b --if-version 2 n2").0.contains("expected_version: Some(2)"));
}
