//! What is told of real chains, in a network namespace that ends with its thread.
#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

use std::process::Command;

use mesh_firewall::forwarding_closed;
use nix::sched::{CloneFlags, unshare};

fn sh(line: &str) {
    let done = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
}

fn closed(pool: &str) -> Vec<String> {
    forwarding_closed(&[pool.parse().unwrap()], "meshd").iter().map(ToString::to_string).collect()
}

fn in_a_namespace(story: fn()) {
    let inside = move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        story();
    };
    std::thread::spawn(inside).join().unwrap();
}

const POOL: &str = "169.254.64.0/18";
const POOL6: &str = "fd6d:6573:6864::/96";

fn drop_in(family: &str, table: &str, chain: &str) {
    sh(&format!("nft add table {family} {table}"));
    sh(&format!(
        "nft 'add chain {family} {table} {chain} {{ type filter hook forward priority 0; policy drop; }}'"
    ));
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_is_found() {
    in_a_namespace(|| {
        assert!(closed(POOL).is_empty());
        drop_in("inet", "fw", "forwarding");
        let told = closed(POOL);
        assert!(told.len() == 1 && told[0].contains("table inet fw"), "{told:?}");
        // The cure that is told is one.
        let commands: Vec<&str> = told[0].split('`').skip(1).step_by(2).collect();
        assert_eq!(commands.len(), 2, "{told:?}");
        commands.iter().for_each(|command| sh(command));
        assert!(closed(POOL).is_empty(), "{:?}", closed(POOL));
        // Our own rules, and those for the other family, are not in the way.
        drop_in("ip6", "fw", "forwarding");
        drop_in("ip", "meshd", "forwarding");
        assert!(closed(POOL).is_empty());
        assert_eq!(closed(POOL6).len(), 2, "{:?}", closed(POOL6));
    });
}

/// nftables' list does not say what the extensions of iptables match.
#[test]
fn rules_of_iptables_are_understood() {
    in_a_namespace(|| {
        sh("iptables-nft -P FORWARD DROP");
        sh(
            "iptables-nft -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment x -j ACCEPT",
        );
        sh("iptables-nft -A FORWARD -m addrtype --src-type LOCAL -j ACCEPT");
        let told = closed(POOL);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("`iptables -I FORWARD -s 169.254.64.0/18 -j ACCEPT`"), "{told:?}");
        sh(
            "iptables-nft -A FORWARD -m addrtype --src-type UNICAST -m multiport -p tcp --dports 80,443 -j ACCEPT",
        );
        assert!(closed(POOL).is_empty(), "some of it may pass: {:?}", closed(POOL));
        sh("iptables-nft -I FORWARD -m physdev --physdev-is-bridged -j ACCEPT");
        sh("iptables-nft -I FORWARD -m addrtype --src-type UNICAST -j DROP");
        assert_eq!(closed(POOL).len(), 1);
    });
}

/// As Docker 20.10 makes them, with a container that has a port open.
const DOCKER: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
";

#[test]
fn dockers_rules_let_nothing_of_tasks_pass() {
    in_a_namespace(|| {
        for kind in ["nft", "legacy"] {
            sh(&format!("iptables-{kind}-restore <<'END'\n{DOCKER}END"));
            let told = closed(POOL);
            assert!(
                told.len() == 1 && told[0].contains("`iptables -I DOCKER-USER -s 169.254"),
                "{kind}: {told:?}"
            );
            let commands: Vec<&str> = told[0].split('`').skip(1).step_by(2).collect();
            commands.iter().for_each(|command| sh(&command.replace("iptables", &format!("iptables-{kind}"))));
            assert!(closed(POOL).is_empty(), "{kind}: {:?}", closed(POOL));
        }
    });
}
