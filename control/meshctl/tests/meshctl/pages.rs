//! Lists, pages and JSON.

use crate::{
    data::TASK_WEB_1,
    fake::{Fake, Script},
};

fn fake() -> Fake {
    Fake::start(Script::default())
}

#[test]
fn node_ls() {
    assert_eq!(
        fake().print("node ls"),
        "\
ID             HOSTNAME   STATUS   AVAILABILITY   ROLE      MANAGER   ADDRESS       GOSSIP   LAG
1node0000000   n1 *       ready    active         manager   leader    192.168.1.1   12       -
2node0000000   n2         ready    active         worker    -         192.168.1.2   5        1.2 s
3node0000000   n3         down     active         worker    -         192.168.1.3   3        -
"
    );
}

#[test]
fn network_ls() {
    let fake = fake();
    assert_eq!(
        fake.print("network ls"),
        "\
NETWORK ID     NAME      DRIVER    VNI    SUBNETS        FLAGS
1net00000000   ingress   overlay   4096   10.0.0.0/24    ingress
2net00000000   prod      overlay   4097   10.10.3.0/24   -
3net00000000   test      overlay   4098   10.10.4.0/24   attachable, internal
"
    );
    assert_eq!(fake.print("network ls -q --filter name=pro"), "2net00000000\n");
    assert_eq!(fake.print("network ls -q --filter label=team=web"), "3net00000000\n");
    assert_eq!(fake.print("network ls -q --filter label=team=db"), "");
}

#[test]
fn service_ls_and_ps() {
    let fake = fake();
    assert_eq!(
        fake.print("service ls"),
        "\
ID             NAME   MODE    NETWORKS     VIPS        TASKS   PORTS
2svc00000000   db     dnsrr   prod, test               1
1svc00000000   web    vip     prod         10.10.3.2   2       *:80->80/tcp, *:8053->53/udp
"
    );
    assert_eq!(
        fake.print("service ps web"),
        "\
ID             NAME    SERVICE   NODE   NETWORKS   ADDRESSES   STATE      HEALTH      WHY
1task0000000   web.1   web       n1     prod       10.10.3.3   ready      healthy     -
2task0000000   web.2   web       n2     prod       10.10.3.4   draining   unhealthy   GET /ready: status 500
"
    );
}

#[test]
fn task_ls() {
    let fake = fake();
    assert_eq!(
        fake.print("task ls --network test"),
        "\
ID             NAME    SERVICE   NODE   NETWORKS     ADDRESSES              STATE   HEALTH
3task0000000   db.1    db        n2     prod, test   10.10.3.5, 10.10.4.1   ready   -
4task0000000   probe   -         n1     test         10.10.4.2              ready   -
"
    );
    assert_eq!(fake.print("task ls -q --service 1svc").lines().count(), 2);
}

#[test]
fn dns_lookup() {
    let fake = fake();
    assert_eq!(
        fake.print("dns lookup --from web.1 db"),
        "\
NAME               TYPE   STATUS     ANSWER      WHY
db.prod.           A      NXDOMAIN   -           network prod has no such name, and nobody else is asked for its names
db.corp.example.   A      NOERROR    192.0.2.7   not known here; asked outside; 192.0.2.53:53, asked from the task
"
    );
    let json = fake.json("dns lookup --from web.1 --type a db");
    assert_eq!(json["lookups"][1]["records"][0], "db.corp.example. 60 IN A 192.0.2.7");
    assert!(json["lookups"][0]["upstream"].is_null() && json["lookups"][1]["network"].is_null());
    let asked = fake.asked().join("\n");
    assert!(asked.contains("name: \"db\"") && asked.contains("type: \"a\""), "{asked}");
    // Another node's task is told apart from none at all.
    let told = fake.run("dns lookup --from web.2 db");
    assert_eq!(told.code, Some(1));
    assert!(told.errors.contains("task web.2 runs on node n2"), "{}", told.errors);
    let told = fake.run("dns lookup --from nobody db");
    assert!(told.errors.contains("no such task on this node: nobody"), "{}", told.errors);
}

#[test]
fn task_inspect() {
    let fake = fake();
    assert_eq!(
        fake.print("task inspect web.1"),
        "\
ID:                   1task00000000000000000000
Name:                 web.1
Service:              web
Node:                 n1
State:                ready
Health:               healthy
Weight:               1
Last check:           passed (2 ms, 4 s ago)
Namespace:            pid 4711
Ports of this node:   8080:80/tcp
Attached by:          cni:prod/4f1e/eth0
Host name:            web-a
Name servers:         192.0.2.53
Resolver options:     ndots:0
Connections:          3

Networks:
  NAME   ADDRESSES   MAC                 ALIASES
  prod   10.10.3.3   02:42:0a:0a:03:03
"
    );
    // Of tasks of other nodes only what all know.
    let page = fake.print("task inspect 2task");
    assert!(page.contains("State:     draining") && !page.contains("Connections"), "{page}");
    assert!(
        page.contains("Health:    unhealthy") && page.contains("Why:       GET /ready: status 500"),
        "{page}"
    );
    let sick = fake.json("service ps web");
    assert_eq!(
        (&sick[1]["health"], &sick[1]["health_note"]),
        (&"unhealthy".into(), &"GET /ready: status 500".into())
    );
    assert!(fake.json("task inspect 2task")[0]["local"].is_null());
    assert_eq!(fake.json("task inspect web.1")[0]["local"]["flows"], 3);
    let told = fake.run("task inspect nothing");
    assert_eq!(told.code, Some(1));
    assert!(
        told.errors.contains("no such task: nothing") && told.errors.contains("task ls"),
        "{}",
        told.errors
    );
}

#[test]
fn network_inspect() {
    assert_eq!(
        fake().print("network inspect prod"),
        "\
ID:           2net000000000000000000000
Name:         prod
Driver:       overlay
VNI:          4097
Subnet:       10.10.3.0/24, gateway 10.10.3.1
Attachable:   no
Internal:     no
Ingress:      no
MTU:          follows the uplink
Labels:
Created:      2023-11-14T22:13:20Z
Version:      0

Nodes:
  NAME   ADDRESS       TASKS
  n1     192.168.1.1   1
  n2     192.168.1.2   2

Services:
  NAME   VIP         TASKS   PORTS
  db     -           1
  web    10.10.3.2   2       *:80->80/tcp, *:8053->53/udp

Tasks:
  ID             NAME    SERVICE   NODE   ADDRESS     STATE
  3task0000000   db.1    db        n2     10.10.3.5   ready
  1task0000000   web.1   web       n1     10.10.3.3   ready
  2task0000000   web.2   web       n2     10.10.3.4   draining
"
    );
}

#[test]
fn service_and_node_inspect() {
    let fake = fake();
    let page = fake.print("service inspect web");
    for line in [
        "Endpoint mode:   vip",
        "  prod   10.10.3.2   www",
        "2task0000000",
        "Affinity:        client-ip,30m",
        "Prefer local:    yes",
        "Drain timeout:   1m30s",
        "Health check:    http:80/ready every 5s, timeout 3s, 3 retries",
        "port 80/tcp: also listened on by nginx (pid 123) on node n3: shadowed by the mesh",
        "port 80/tcp: also listened on by a process on node n3",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    assert!(!page.contains("caddy"), "not its port: {page}");
    assert!(fake.print("node inspect n3").contains("port 443/tcp: also listened on by caddy (pid 124)"));
    let page = fake.print("node inspect");
    for line in ["Hostname:            n1", "This node:           yes", "probe"] {
        assert!(page.contains(line), "{line} in {page}");
    }
    assert!(fake.print("node inspect n2 3node").contains("3node00000000000000000000"));
}

#[test]
fn status() {
    let page = fake().print("status");
    assert_eq!(
        page,
        "\
Daemon:              meshd 0.1.0
State:               active
Cluster:             1cluster00000000000000000
Node:                n1 (1node00000000000000000000), manager
Address:             192.168.1.1
Data path address:   192.168.1.1
Managers:            192.168.1.1:2377
Session:             connected to 192.168.1.1:2377
View:                version 17
Members:             3: 2 alive, 1 down
Gossip:              1 of 2 tables behind for 1.2 s; statement 12, all acknowledged
Gossip traffic:      in 12 packets/s 1800 B/s, out 13 packets/s 1900 B/s
Gossip refused:      2 forged
Tasks:               2
Leases:              held without a manager for 1d12h
Data path:           fast
Uplink:              eth0, MTU 1500; tasks have 1450

Members that are not alive:
  NODE ID        NAME   STATE
  3node0000000   n3     down

Uplinks:
  INTERFACE   HOOK   MTU    WHY NOT XDP
  eth0        tcx    1500   veth

Flows:
  TABLE     FLOWS   ROOM FOR   FULL
  choices   50      1000       5 %

Hooks:
  INTERFACE     PROGRAM     KIND
  eth0          uplink      tcx
  msh00000001   from_task   tcx

Packets:
  PATH   PACKETS
  fast   1000

Drops:
  REASON           PACKETS
  no_backend       12
  spoofed_source   3

Missing kernel features:
  netkit: not in this kernel

Warnings:
  the clock is off by 3 s
  port 80/tcp: also listened on by nginx (pid 123) on node n1: shadowed by the mesh
"
    );
}

#[test]
fn debug_gossip() {
    let fake = fake();
    assert_eq!(
        fake.print("debug gossip"),
        "\
Node:             n1 (1node00000000000000000000)
Version:          1000.12
Gossip:           1 of 2 tables behind for 1.2 s; statement 12, all acknowledged
Gossip traffic:   in 12 packets/s 1800 B/s, out 13 packets/s 1900 B/s
Gossip refused:   2 forged

Tables:
  TABLE         ENTRIES   TOMBSTONES   DIGEST             EQUAL       BEHIND
  (interests)   2         1            0000000000000102   3.4 s ago   -
  prod          2         1            feed000000000001   never       1.2 s

Members:
  MEMBER   STATE     FOR    ADDRESS            VERSION   ENTRIES   BEHIND
  n1       alive     2m5s   192.168.1.1:7946   1000.12   2         -
  n2       suspect   2m5s   192.168.1.1:7946   1000.5    2         1.2 s
  n3       down      2m5s   192.168.1.1:7946   1000.3    2         -

Entries:
  TABLE         OWNER   ENTRY          VERSION   CONTENT
  (interests)   n1      interest       1000.1    prod
  prod          n1      web.1          1000.12   10.10.3.3 ready
  prod          n2      2task0000000   1000.5    gone 1m1s ago
  prod          n3      web.2          1000.3    10.10.3.4 draining (owner gone)
"
    );
    let of =
        |node: &str| fake.json(&format!("debug gossip --node {node}"))["entries"].as_array().unwrap().len();
    assert_eq!((of("n1"), of("2node"), of("3node00000000000000000000")), (2, 1, 1));
    let refused = fake.run("debug gossip --node n9");
    assert!(refused.code == Some(1) && refused.errors.contains("no node n9"), "{}", refused.errors);
}

#[test]
fn debug_gossip_tells_differences() {
    let fake = fake();
    let mut other = fake.json("debug gossip");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.json");
    let diff = |dump: &serde_json::Value| {
        std::fs::write(&file, dump.to_string()).unwrap();
        fake.print(&format!("debug gossip --diff {}", file.display()))
    };
    assert_eq!(diff(&other), "n1 and n1 know the same.\n");
    other["node_name"] = "n2".into();
    other["entries"][1]["statement"] = 13.into();
    other["entries"].as_array_mut().unwrap().pop();
    assert_eq!(
        diff(&other),
        "\
TABLE   OWNER   ENTRY   N1        N2
prod    n1      web.1   1000.12   1000.13
"
    );
    std::fs::write(&file, "no dump").unwrap();
    let refused = fake.run(&format!("debug gossip --diff {}", file.display()));
    assert!(refused.code == Some(1) && refused.errors.contains("is no dump"), "{}", refused.errors);
}

#[test]
fn status_outside_any_cluster() {
    let fake = Fake::start(Script { inactive: true, ..Script::default() });
    let page = fake.print("status");
    assert!(page.contains("inactive") && page.contains("meshctl init"), "{page}");
    assert_eq!(fake.json("status")["state"], "inactive");
}

#[test]
fn json() {
    let fake = fake();
    let tasks = fake.json("task ls");
    assert_eq!(tasks.as_array().unwrap().len(), 4);
    let web = tasks.as_array().unwrap().iter().find(|task| task["name"] == "web.1").unwrap();
    assert_eq!(web["id"], TASK_WEB_1);
    assert_eq!(web["networks"].as_array().unwrap().len(), 1);
    assert_eq!(web["networks"][0]["addresses"][0], "10.10.3.3");
    assert_eq!((&web["service"], &web["node"], &web["pid"]), (&"web".into(), &"n1".into(), &4711.into()));
    let probe = tasks.as_array().unwrap().iter().find(|task| task["name"] == "probe").unwrap();
    assert!(probe["service"].is_null() && probe["namespace"].is_null());

    assert_eq!(fake.json("node ls")[0]["status"], "ready");
    assert_eq!(fake.json("node inspect n2")[0]["tasks"].as_array().unwrap().len(), 2);
    let network = &fake.json("network inspect test")[0];
    assert_eq!((&network["vni"], &network["mtu"]), (&4098.into(), &1400.into()));
    assert_eq!(network["subnets"][0]["gateway"], "10.10.4.254");
    assert!(fake.json("network ls --filter name=nothing").as_array().unwrap().is_empty());
    let service = &fake.json("service inspect web")[0];
    assert_eq!(service["networks"][0]["vips"][0], "10.10.3.2");
    assert_eq!(service["ports"][1]["published"], 8053);
    assert_eq!(service["ports"][1]["mode"], "ingress");
    assert_eq!((&service["affinity"], &service["prefer_local"]), (&"client-ip,30m".into(), &true.into()));
    assert_eq!(service["listeners"][1]["pid"], 123);
    assert_eq!(web["weight"], 1);
    assert_eq!(fake.json("service ls")[0]["task_count"], 1);
    assert_eq!(fake.json("status")["data_path"]["drops"]["no_backend"], 12);
}

#[test]
fn what_is_no_terminal_gets_no_colours() {
    for words in ["node ls", "status", "service ps web"] {
        assert!(!fake().print(words).contains('\u{1b}'), "{words}");
    }
}

#[test]
fn colours_when_wanted() {
    let fake = fake();
    let output = fake.command(&["node", "ls"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\u{1b}["), "{text}");
    assert!(!text.contains("   \n"), "{text:?}");
}
