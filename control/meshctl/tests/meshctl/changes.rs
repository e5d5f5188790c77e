//! Verbs that change something: what the daemon is asked, and what is printed.

use crate::{
    data::{PROD, TASK_WEB_1, WEB},
    fake::{Fake, Script},
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

#[test]
fn init_prints_the_command_to_join() {
    let (asked, printed) = asked("init --advertise-addr eth1 --listen-addr 192.168.1.1 --name n1");
    assert!(asked.contains("advertise_addr: \"eth1\""), "{asked}");
    assert!(asked.contains("listen_addr: \"192.168.1.1:2377\""), "{asked}");
    assert!(printed.contains("\n    meshctl join --token MESHTKN-1-abc-def 192.168.1.1:2377\n"), "{printed}");
    assert_eq!(fake().json("init")["worker_token"], "MESHTKN-1-abc-def");
}

#[test]
fn join_and_leave() {
    let (asked_for, printed) = asked("join --token T --advertise-addr 192.168.1.2 192.168.1.1 m:2378");
    assert!(asked_for.contains("managers: [\"192.168.1.1\", \"m:2378\"]"), "{asked_for}");
    assert!(printed.contains("as a worker"), "{printed}");
    assert!(asked("leave --force").0.contains("force: true"));
}

#[test]
fn join_token() {
    let (asked_for, printed) = asked("join-token --rotate manager");
    assert!(asked_for.contains("Manager") && asked_for.contains("rotate: true"), "{asked_for}");
    assert!(
        printed.contains("    meshctl join --token MESHTKN-1-abc-def 192.168.1.1:2377 192.168.1.4:2377\n"),
        "{printed}"
    );
    assert_eq!(asked("join-token --quiet").1, "MESHTKN-1-abc-def\n");
}

#[test]
fn network_create_prints_the_id() {
    let (asked, printed) = asked(
        "network create --driver overlay --subnet 10.10.3.0/24 --gateway 10.10.3.9 --subnet fd00:3::/64 \
         --ip-range 10.10.3.64/26 --ipv6 --attachable --internal --label a=b --opt mtu=1400 prod",
    );
    assert_eq!(printed, format!("{PROD}\n"));
    for part in [
        "Subnet { net: \"10.10.3.0/24\", gateway: \"10.10.3.9\" }",
        "Subnet { net: \"fd00:3::/64\", gateway: \"fd00:3::1\" }",
        "ip_ranges: [\"10.10.3.64/26\"]",
        "ipv6: true",
        "attachable: true",
        "internal: true",
        "mtu: 1400",
        "{\"a\": \"b\"}",
    ] {
        assert!(asked.contains(part), "{part} in {asked}");
    }
}

#[test]
fn service_create_prints_the_id() {
    let (asked, printed) = asked(
        "service create --network prod --network test --alias www --publish 80:80 --publish 53/udp \
         --affinity client-ip,30m --prefer-local --drain-timeout 2m --health http:80/ready --health-interval 5s \
         --endpoint-mode dnsrr web",
    );
    assert_eq!(printed, format!("{WEB}\n"));
    for part in [
        "network: \"prod\"",
        "network: \"test\"",
        "[\"www\"]",
        "Dnsrr",
        "published: 80",
        "target: 53, protocol: Udp",
        "Affinity { timeout_secs: 1800 }",
        "prefer_local: true",
        "drain_timeout_secs: Some(120)",
        "health: Some(HealthCheck { probe: \"http:80/ready\", interval_secs: Some(5), timeout_secs: None",
    ] {
        assert!(asked.contains(part), "{part} in {asked}");
    }
}

#[test]
fn health_checks_are_checked_before_they_are_asked_for() {
    assert!(asked("service update --health none web").0.contains("NoHealth(true)"));
    let (asked_for, _) = asked("service update --health-retries 5 --health-start-period 1m web");
    assert!(asked_for.contains("probe: \"\", interval_secs: None"), "{asked_for}");
    assert!(asked_for.contains("retries: Some(5), start_period_secs: Some(60)"), "{asked_for}");
    let fake = fake();
    for (words, part) in [
        ("service update --health udp:53 web", "tcp:PORT, http:PORT/PATH"),
        ("service update --health tcp:0 web", "not a port number"),
        ("service update --health http:80/a#b web", "must begin with /"),
        ("service update --health tcp:80 --health-interval 10 web", "not a time"),
        ("service update --health tcp:80 --health-timeout 0 web", "must be 1s to 1d"),
        ("service update --health tcp:80 --health-retries 0 web", "must be 1 to 1000"),
        ("service update --health none --health-retries 1 web", "leaves nothing to set"),
        ("service create --health-interval 5s web", "what to check is missing"),
    ] {
        let told = fake.run(words);
        assert_eq!(told.code, Some(2), "{words}: {}", told.errors);
        assert!(told.errors.contains(part), "{words}: {}", told.errors);
    }
}

#[test]
fn publish_prints_the_port() {
    assert_eq!(asked("publish 8080:80 web").1, "8080:80/tcp\n");
    assert_eq!(asked("publish 80 web").1, "30000:80/tcp\n");
    let (asked_for, printed) = asked("publish published=8053,target=53,protocol=udp web");
    assert_eq!(printed, "8053:53/udp\n");
    assert!(asked_for.contains("protocol: Udp"), "{asked_for}");
    let (asked_for, printed) = asked("publish --return direct 8000-8002 web");
    assert_eq!(asked_for.matches("return_mode: Direct").count(), 3, "{asked_for}");
    assert_eq!(printed, "30000-30002:8000-8002/tcp,return=direct\n", "{asked_for}");
    assert!(asked("publish eth0:80:80 web").0.contains("Interface(\"eth0\")"));
    assert!(asked("publish [fd00::5]:80:80,mode=host web").0.contains("Address(\"fd00::5\")"));
    for (words, port) in [
        ("unpublish 8053/udp", "8053/udp"),
        ("unpublish 10.0.0.5:80:80", "10.0.0.5:80:80/tcp"),
        ("unpublish 8000-8010 web", "8000-8010/tcp"),
        ("unpublish published=80,mode=host web", "80/tcp,mode=host"),
    ] {
        assert!(asked(words).0.contains(&format!("ports: [\"{port}\"]")), "{words}");
    }
}

#[test]
fn service_update_says_only_what_changes() {
    let (asked_for, printed) = asked(
        "service update --affinity none --prefer-local=false --drain-timeout none --publish-rm 80 \
         --publish-add 80:80,mode=host --publish-add 1-2:1-2 --label-add a=b --label-rm c web",
    );
    assert_eq!(printed, format!("{WEB}\n"));
    for part in [
        "NoAffinity(true)",
        "prefer_local: Some(false)",
        "drain_timeout_secs: Some(30)",
        "remove_ports: [\"80/tcp\"]",
        "mode: Host",
        "published: 2, target: 2",
        "set_labels: {\"a\": \"b\"}",
        "remove_labels: [\"c\"]",
    ] {
        assert!(asked_for.contains(part), "{part} in {asked_for}");
    }
    let (asked_for, _) = asked("service update --drain-timeout 1m web");
    for part in ["affinity_change: None", "prefer_local: None", "add_ports: []"] {
        assert!(asked_for.contains(part), "{part} in {asked_for}");
    }
    let nothing = fake().run("service update web");
    assert_eq!(nothing.code, Some(2), "{}", nothing.errors);
}

#[test]
fn node_update() {
    let (asked_for, printed) = asked("node update --availability drain --label-add zone=a n2");
    assert_eq!(printed, format!("{}\n", crate::data::NODE_2));
    assert!(
        asked_for.contains("availability: Drain") && asked_for.contains("\"zone\": \"a\""),
        "{asked_for}"
    );
    assert!(asked("node update --label-rm zone n2").0.contains("availability: Unspecified"));
    assert_eq!(fake().run("node update n2").code, Some(2));
}

#[test]
fn removal_goes_on_after_a_refusal() {
    let fake = fake();
    let outcome = fake.run("network rm a used b");
    assert_eq!((outcome.code, outcome.text.as_str()), (Some(1), "a\nb\n"));
    assert_eq!(outcome.errors, "meshctl: cannot remove network used: it is used by service web\n");
    let outcome = fake.run("service rm used used");
    assert_eq!((outcome.code, outcome.errors.lines().count()), (Some(1), 2));
    assert_eq!(fake.print("node rm n3"), "n3\n");
    assert_eq!(fake.print("node rm --force n4"), "n4\n");
}

#[test]
fn attach_and_detach() {
    let own = std::process::id();
    let (asked_for, printed) = asked(&format!(
        "attach --network prod --ip 10.10.3.3 --ip6 fd00::3 --weight 7 --drain-timeout 90s --name web.1 {own}"
    ));
    assert!(asked_for.contains(&format!("Pid({own})")), "{asked_for}");
    assert!(asked_for.contains("addresses: [\"10.10.3.3\", \"fd00::3\"]"), "{asked_for}");
    assert!(asked_for.contains("weight: 7, drain_timeout_secs: Some(90)"), "{asked_for}");
    assert_eq!(
        printed,
        "ID             NAME    NETWORK   ADDRESS\n1task0000000   web.1   prod      10.10.3.3\n"
    );
    let (asked_for, _) = asked(&format!("attach --service web /proc/{own}/ns/net"));
    assert!(asked_for.contains(&format!("Path(\"/proc/{own}/ns/net\")")), "{asked_for}");

    // It drains first, and is then meant by its id.
    let (asked_for, printed) = asked("detach web.1");
    let steps: Vec<&str> = asked_for.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(steps, ["GetTaskRequest", "DrainTaskRequest", "DetachRequest"], "{asked_for}");
    let detach = format!("DetachRequest {{ reference: \"{TASK_WEB_1}\"");
    assert!(asked_for.contains("\"web.1\"") && asked_for.contains(&detach), "{asked_for}");
    assert_eq!(printed, "web.1\n");
    assert!(!asked("detach --force web.1").0.contains("DrainTask"));
    assert!(asked("detach red").0.contains("netns/red\""));
    let outcome = fake().run("detach nothing");
    assert_eq!(outcome.code, Some(1));
    assert_eq!(
        outcome.errors,
        "meshctl: cannot detach nothing: no such task: nothing\n`meshctl task ls` lists them.\n"
    );
}

#[test]
fn tasks_of_other_nodes_are_named_with_their_node() {
    for words in [
        "detach web.2",
        "task drain web.2",
        "task update --weight 2 web.2",
        "network connect test web.2",
        "network disconnect prod web.2",
    ] {
        let told = fake().run(words);
        assert_eq!(told.code, Some(1), "{words}");
        assert!(
            told.errors.ends_with("task web.2 runs on node n2; run this there\n"),
            "{words}: {}",
            told.errors
        );
    }
}

#[test]
fn drain_waits_when_told_to_and_says_what_was_cut() {
    let slow = |flows_cut| Fake::start(Script { drains: 3, flows_cut, ..Script::default() });
    let fake = slow(2);
    assert_eq!(fake.print("task drain --timeout 90s web.1"), "web.1\n");
    let asked_for = fake.asked();
    assert_eq!(asked_for.len(), 1, "it does not wait: {asked_for:?}");
    assert!(asked_for[0].contains("timeout_secs: Some(90)"), "{asked_for:?}");

    let fake = slow(2);
    let told = fake.run("task drain --wait web.1");
    assert_eq!((told.code, told.text.as_str()), (Some(0), "web.1\n"));
    let note = "meshctl: task web.1: 2 connections were still open when its drain timeout ended\n";
    assert_eq!(told.errors, note);
    assert!(fake.asked().len() > 3, "{:?}", fake.asked());
    let told = fake.run("--format json task drain --wait web.1");
    let json: serde_json::Value = serde_json::from_str(&told.text).unwrap();
    assert_eq!((&json["state"], &json["flows_cut"]), (&"drained".into(), &2.into()));

    let told = slow(0).run("detach web.1");
    assert_eq!((told.code, told.text.as_str(), told.errors.as_str()), (Some(0), "web.1\n", ""));
    let json = slow(0).json("task drain web.1");
    assert_eq!((&json["state"], &json["drain_left_secs"]), (&"draining".into(), &25.into()));
    let told = slow(0).run("task drain nothing");
    assert_eq!(
        told.errors,
        "meshctl: cannot drain nothing: no such task: nothing\n`meshctl task ls` lists them.\n"
    );
}

#[test]
fn task_update() {
    let (asked_for, printed) = asked("task update --weight 7 web.1");
    assert!(asked_for.contains("weight: 7"), "{asked_for}");
    assert_eq!(printed, "web.1\n");
    assert_eq!(fake().json("task update --weight 7 web.1")["weight"], 7);
}

#[test]
fn changes_wait_for_the_nodes() {
    let late = |late| Fake::start(Script { late, ..Script::default() });
    for words in [
        "network create --wait prod",
        "network update --wait --label-add a=b prod",
        "service create --wait web",
        "service update --wait --prefer-local web",
        "publish --wait 81:81 web",
        "unpublish --wait 80 web",
    ] {
        let fake = late(2);
        let told = fake.run(words);
        assert_eq!(told.code, Some(0), "{words}: {}", told.errors);
        // What is no terminal gets no progress; who is away is told.
        assert_eq!(told.errors, "meshctl: n3 is away; it follows when back\n", "{words}");
        let asked = fake.asked();
        let version = if words.contains("network") { 0 } else { 17 };
        let progress = format!("ProgressRequest {{ version: {version} }}");
        assert_eq!(asked.iter().filter(|asked| **asked == progress).count(), 3, "{words}: {asked:?}");
    }
    let told = late(usize::MAX).run("publish --wait --timeout 0s 81:81 web");
    assert_eq!((told.code, told.text.as_str()), (Some(1), "81:81/tcp\n"));
    assert!(
        told.errors.starts_with("meshctl: 1 of 2 nodes programmed; not yet: n2\nThe change is made"),
        "{}",
        told.errors
    );
    assert_eq!(fake().run("publish --timeout 3s 81:81 web").code, Some(2), "no use without --wait");
}

#[test]
fn completions_need_no_daemon() {
    for shell in ["bash", "zsh", "fish"] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_meshctl"))
            .args(["--socket", "/no/such/socket", "completion", shell])
            .output()
            .unwrap();
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("COMPLETE") && script.contains("meshctl"), "{shell}: {script}");
    }
}
