//! Flows, traces and rates.

use crate::fake::{Fake, Script};

fn fake() -> Fake {
    Fake::start(Script::default())
}

#[test]
fn flows() {
    let fake = fake();
    assert_eq!(
        fake.print("flows"),
        "\
PROTOCOL   CLIENT                    TO                     TASK                   NODE   STATE         IDLE
tcp        203.0.113.9:50000         web (192.168.1.1:80)   web.2 (10.10.3.4:80)   n2     established   3s
tcp        probe (10.10.3.9:50000)   web (10.10.3.2:80)     -                      -      new           6m
"
    );
    let json = fake.print("--format json flows");
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["task"], &lines[0]["entrance"]), (&"web.2".into(), &"n1".into()));
    assert!(lines[1]["task"].is_null() && lines[1]["task_port"].is_null() && lines.len() == 2, "{json}");
    assert_eq!(
        fake.run("flows --format {{.ClientAddress}},{{.State}}").text,
        "203.0.113.9,established\n10.10.3.9,new\n"
    );
}

#[test]
fn conditions_on_flows() {
    let fake = fake();
    let told =
        fake.run("flows --service web --client 10.0.0.0/8 --client probe --port 80 --state new --limit 1");
    assert_eq!(told.code, Some(0));
    assert!(told.errors.contains("1 of 2 flows are shown"), "{}", told.errors);
    let asked = fake.asked().join("\n");
    for part in ["services: [\"web\"]", "clients: [\"10.0.0.0/8\", \"probe\"]", "ports: [80]", "limit: 1"] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    for (wrong, told) in [
        ("flows --state open", "established"),
        ("flows --protocol esp", "sctp"),
        ("flows --port 0", "1..=65535"),
        ("trace --from web.1 --to web", "NAME:PORT"),
        ("trace --from x@n1 --to web:80", "ADDRESS@NODE"),
    ] {
        let outcome = fake.run(wrong);
        assert_eq!(outcome.code, Some(2), "{wrong}");
        assert!(outcome.errors.contains(told), "{wrong}: {}", outcome.errors);
    }
}

#[test]
fn traces() {
    let fake = fake();
    assert_eq!(
        fake.print("trace --from probe --to web:80"),
        "\
Fate:      delivered
Meaning:   task web.2 gets it
Answer:    delivered
Meaning:   task probe gets it

n1, the task's resolver:
       web. A: 10.10.3.2 (a name)
  =>   web is 10.10.3.2

n1, from_task:
       10.10.3.2 is the virtual address of service web
  =>   sent to node n2

n2, uplink:
  =>   into task web.2

n2, from_task, the answer:
       task web.2 answers
  =>   sent to node n1
"
    );
    let dropped = fake.run("trace --from 203.0.113.9@n2 --to web:81 --protocol udp -4");
    assert_eq!(dropped.code, Some(1));
    assert!(dropped.text.starts_with("Fate:      dropped: no-backend\n"), "{}", dropped.text);
    let asked = fake.asked().join("\n");
    for part in ["node: \"n2\", outside: true", "protocol: \"udp\", ipv6: Some(false)", "port: 81"] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    assert_eq!(fake.json("trace --from probe --to web:80")["steps"][2]["node"], "n2");
}

#[test]
fn one_look_where_nobody_watches() {
    let fake = fake();
    assert_eq!(
        fake.print("top"),
        "\
Node:    n1
Nodes:   2 alive, 1 down

Services:
  SERVICE   READY   FLOWS   NEW/S   IN B/S   OUT B/S   DROPS/S
  web       1/2     7       5       5.0k     10M       0

Tasks:
  TASK    NETWORK   FLOWS   NEW/S   IN B/S   OUT B/S   DROPS/S
  web.2   prod      6       2       2.0k     4.0M      0
  web.1   prod      3       1       1.0k     2.0M      0

Drops:
  REASON       DROPS/S
  no-backend   4
"
    );
    let json = fake.json("top --sort name");
    assert_eq!((&json["tasks"][0]["name"], &json["tasks"][0]["bytes_in"]), (&"web.1".into(), &1000.0.into()));
}

#[test]
fn events_as_they_happen() {
    let fake = fake();
    let told = fake.run("monitor --type new --type dropped --service web");
    assert_eq!(told.code, Some(0));
    assert_eq!(
        told.text,
        "\
1970-01-01T00:00:01.000000Z new tcp 203.0.113.9:50000 -> web (192.168.1.1:80) by web.2 (10.10.3.4:80) on n2
1970-01-01T00:00:01.000000Z dropped tcp 203.0.113.9:50000 -> web (192.168.1.1:80) by web.2 (10.10.3.4:80) on n2: no-backend (program uplink)
5 events were not told: there were too many
"
    );
    let asked = fake.asked().join("\n");
    assert!(asked.contains("new: true, closed: false, drops: true"), "{asked}");
    let json = fake.print("--format json monitor");
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[1]["type"], &lines[1]["reason"]), (&"dropped".into(), &"no-backend".into()));
    assert_eq!((&lines[2]["type"], &lines[2]["lost"]), (&"lost".into(), &5.into()));
}

#[test]
fn packets_in_a_file() {
    let fake = fake();
    let file = fake.folder().join("web.pcapng");
    let told = fake.run(&format!("capture web -w {} --count 2 --port 80", file.display()));
    assert_eq!(told.code, Some(0), "{}", told.errors);
    assert!(told.errors.contains("2 packets"), "{}", told.errors);
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(bytes[..4], 0x0a0d_0d0a_u32.to_le_bytes());
    let all = fake.run(&format!("capture web -w {}", file.display()));
    assert!(all.errors.contains("3 packets, 5 more were not told"), "{}", all.errors);
    assert!(std::fs::read(&file).unwrap().len() > bytes.len());
    // What is written stays whole when the disk is full.
    let full = fake.run("capture web -w /dev/full");
    assert_eq!(full.code, Some(1));
    assert!(full.errors.contains("cannot write /dev/full"), "{}", full.errors);
    let nowhere = fake.run("capture web -w /nowhere/x");
    assert!(nowhere.errors.contains("cannot write /nowhere/x"), "{}", nowhere.errors);
}
