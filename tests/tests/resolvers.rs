//! Names as programs ask for them: by the resolvers of glibc, musl, busybox and Go, and over restarts of the daemon, with a
//! service manager that keeps the name servers' sockets and without one.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, NetNs, Node, Prefix, ServiceManager, Task, TaskSpec, output, run, succeed, wait};

const SOON: Duration = Duration::from_secs(20);
/// How long a client waits that asks only once.
const PATIENCE: Duration = Duration::from_secs(60);
/// What libc gives a name server before it tries again.
const FIRST_TRY: Duration = Duration::from_secs(5);
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);

fn create(node: &Node) -> Result<()> {
    let words =
        ["network", "create", "--driver", "overlay", "--subnet", "10.10.3.0/24", "--subnet", "fd00:3::/64"];
    node.ctl(&[&words[..], &["--attachable", "prod"]].concat())?;
    node.ctl(&["service", "create", "--network", "prod", "--alias", "www", "web"]).map(drop)
}

fn task(cluster: &Cluster, name: &str) -> Result<Task> {
    cluster[0].run_idle(&TaskSpec { name, network: "prod", ..TaskSpec::default() })
}

/// Compiled here, so that it is what musl's libc makes of the answers.
fn musl_resolver(folder: &Path) -> Result<PathBuf> {
    let (source, program) = (folder.join("resolve.c"), folder.join("resolve"));
    let text = r#"
#include <netdb.h>
#include <stdio.h>
#include <arpa/inet.h>
int main(int count, char **words) {
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found, *at;
    int status = getaddrinfo(words[1], 0, &hints, &found);
    if (status) { printf("%s\n", gai_strerror(status)); return 2; }
    for (at = found; at; at = at->ai_next) {
        char text[100], name[300];
        if (getnameinfo(at->ai_addr, at->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST)) return 3;
        if (getnameinfo(at->ai_addr, at->ai_addrlen, name, sizeof name, 0, 0, NI_NAMEREQD)) return 4;
        printf("%s %s\n", text, name);
    }
    return 0;
}
"#;
    std::fs::write(&source, text).with_context(|| source.display().to_string())?;
    let mut compile = Command::new("musl-gcc");
    succeed(compile.arg("-static").arg("-o").arg(&program).arg(&source))
        .context("`cargo xtask setup` installs it")?;
    Ok(program)
}

#[test]
fn every_resolver_finds_what_is_there_and_nothing_else() -> Result<()> {
    run(1, |cluster| {
        create(&cluster[0])?;
        cluster.wait_for_view()?;
        let (asker, other) = (task(cluster, "asker")?, task(cluster, "other")?);
        let expected: Vec<String> = other.addresses()?.iter().map(ToString::to_string).collect();
        ensure!(expected.len() == 2, "the other task has {expected:?}");
        let musl = musl_resolver(asker.folder())?;
        let musl = musl.to_string_lossy().into_owned();
        let finds = |words: &[&str], expected: &[&str]| {
            wait("the answer", SOON, || {
                let said = output(asker.command(words[0])?.args(&words[1..]))?;
                for part in expected {
                    ensure!(said.contains(part), "{words:?} finds no {part}: {said}");
                }
                Ok(())
            })
        };
        let denies = |words: &[&str]| -> Result<()> {
            let said = asker.command(words[0])?.args(&words[1..]).output().context(words[0].to_owned())?;
            ensure!(!said.status.success(), "{words:?} finds {}", String::from_utf8_lossy(&said.stdout));
            Ok(())
        };
        let both: Vec<&str> = expected.iter().map(String::as_str).collect();
        for name in ["other", "OTHER", "other.prod"] {
            finds(&["getent", "ahosts", name], &both)?;
            finds(&[&musl, name], &both)?;
            finds(&["busybox", "nslookup", name], &both)?;
        }
        // Names of addresses, as logs and ssh ask for them.
        for address in &both {
            finds(&["getent", "hosts", address], &["other.prod"])?;
        }
        finds(&[&musl, "other"], &["other.prod"])?;
        finds(&["busybox", "nslookup", both[0]], &["other.prod"])?;
        finds(&["busybox", "ping", "-c", "1", "-W", "5", "other"], &["1 packets received"])?;
        // A service and its alias: the same address by every resolver.
        let vip = asker.dig(&["www"])?.concat();
        for program in [&["getent", "ahosts"][..], &[&musl], &["busybox", "nslookup"]] {
            finds(&[program, &["web"]].concat(), &[&vip])?;
        }
        for name in ["nothing.prod", "tasks.nothing.prod"] {
            denies(&["getent", "ahosts", name])?;
            denies(&[&musl, name])?;
            denies(&["busybox", "nslookup", name])?;
        }
        Ok(())
    })
}

/// Compiled here without C, so that it is what Go's own resolver makes of the answers; from Debian's standard library alone.
fn go_resolver(folder: &Path) -> Result<PathBuf> {
    let (source, program) = (folder.join("resolve.go"), folder.join("resolve-go"));
    let text = r#"package main

import (
	"context"
	"fmt"
	"net"
	"os"
)

func main() {
	resolver, ctx := &net.Resolver{PreferGo: true}, context.Background()
	kind, name := os.Args[1], os.Args[2]
	found, err := []string{}, error(nil)
	switch kind {
	case "ip", "ip4", "ip6":
		ips, e := resolver.LookupIP(ctx, kind, name)
		err = e
		for _, ip := range ips {
			found = append(found, ip.String())
		}
	case "addr":
		found, err = resolver.LookupAddr(ctx, name)
	case "srv":
		_, records, e := resolver.LookupSRV(ctx, "", "", name)
		err = e
		for _, record := range records {
			found = append(found, fmt.Sprintf("%s:%d", record.Target, record.Port))
		}
	}
	if e, ok := err.(*net.DNSError); ok && e.IsNotFound {
		fmt.Println("not found")
	} else if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	for _, one := range found {
		fmt.Println(one)
	}
}
"#;
    std::fs::write(&source, text).with_context(|| source.display().to_string())?;
    let mut build = Command::new("go");
    build.arg("build").arg("-o").arg(&program).arg(&source).current_dir(folder);
    build.env("CGO_ENABLED", "0").env("GOPROXY", "off").env("GOFLAGS", "").env("GO111MODULE", "off");
    build.env("GOCACHE", folder.join("go-cache")).env("GOPATH", folder.join("go"));
    succeed(&mut build).context("`cargo xtask setup` installs golang-go")?;
    Ok(program)
}

#[test]
fn go_without_c_finds_what_is_there_and_nothing_else() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        create(node)?;
        // An answer with names of this length does not fit into the 1,232 bytes that Go says it takes.
        let back = "b".repeat(50);
        node.ctl(&["network", "create", "--attachable", "--subnet", "10.10.4.0/24", &back])?;
        node.ctl(&["service", "update", "--network-add", &back, "--publish-add", "8080:80", "web"])?;
        cluster.wait_for_view()?;
        let names: Vec<String> = (0..10).map(|n| format!("{}{n}", "t".repeat(50))).collect();
        let spec = |name| TaskSpec { name, network: &back, service: Some("web"), ..TaskSpec::default() };
        let tasks = names.iter().map(|name| node.run_idle(&spec(name))).collect::<Result<Vec<Task>>>()?;
        let other = task(cluster, "other")?;
        let options =
            ["--network", &back, "--dns-search", &back, "--dns-option", "ndots:1", "--alias", "myself"];
        let asker = TaskSpec { name: "asker", network: "prod", options: &options, ..TaskSpec::default() };
        let asker = node.run_idle(&asker)?;
        let program = go_resolver(asker.folder())?;
        let finds = |kind: &str, name: &str, expected: &[String]| {
            let mut expected = expected.to_vec();
            expected.sort();
            wait("the answer", SOON, || {
                let said = output(asker.command(&program)?.args([kind, name]))?;
                let mut said: Vec<&str> = said.lines().collect();
                said.sort();
                ensure!(said == expected, "Go finds {said:?} as {kind} of {name}, not {expected:?}");
                Ok(())
            })
        };
        let nothing = ["not found".to_owned()];
        let both: Vec<String> = other.addresses()?.iter().map(ToString::to_string).collect();
        for name in ["other", "OTHER", "other.prod", "other.prod."] {
            finds("ip", name, &both)?;
        }
        for address in &both {
            finds("addr", address, &["other.prod.".to_owned()])?;
        }
        for network in ["prod", &back] {
            finds("ip4", &format!("myself.{network}"), &asker.dig(&[&format!("asker.{network}")])?)?;
        }
        // The search domain comes before the name as it is, which would be that of the first network.
        let (first, second) = (asker.dig(&["web.prod"])?, asker.dig(&[&format!("web.{back}")])?);
        ensure!(first.len() == 1 && second.len() == 1 && first != second, "web is {first:?} and {second:?}");
        finds("ip", "web", &second)?;
        finds("ip4", "web.prod", &first)?;
        // The alias is one of the first network alone: with the search domain it is denied, and asked for as it is.
        finds("ip4", "www", &first)?;
        let addresses: Vec<String> =
            tasks.iter().map(|task| Ok(task.address()?.to_string())).collect::<Result<_>>()?;
        finds("ip", "tasks.web", &addresses)?;
        // An IPv4 network: the other family is empty, and that is no failure.
        finds("ip6", &format!("tasks.web.{back}"), &nothing)?;
        ensure!(asker.dig_status(&[&format!("tasks.web.{back}"), "AAAA"])? == "NOERROR", "AAAA is denied");
        for name in ["nothing.prod", "tasks.nothing.prod", "nothing"] {
            finds("ip", name, &nothing)?;
        }

        let large = format!("_80._tcp.tasks.web.{back}");
        let flags = asker.command("dig")?.args(["+ignore", "+bufsize=1232", &large, "SRV"]).output()?;
        let flags = String::from_utf8_lossy(&flags.stdout).into_owned();
        ensure!(flags.contains("flags: qr aa tc") || flags.contains(" tc "), "it fits a datagram: {flags}");
        let targets: Vec<String> = names.iter().map(|name| format!("{name}.{back}.:80")).collect();
        finds("srv", &large, &targets)
    })
}

/// A query for the address of `other`.
const QUERY: &[u8] = b"\x4d\x44\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05other\x00\x00\x01\x00\x01";

fn socket(task: &Task, patience: Duration) -> Result<UdpSocket> {
    let socket = task.inside(|| UdpSocket::bind("127.0.0.1:0"))?.context("a socket to ask with")?;
    socket.set_read_timeout(Some(patience)).context("a socket's timeout")?;
    socket.connect(SERVER).context("the name server")?;
    Ok(socket)
}

fn found(answer: &[u8], task: &Task) -> Result<()> {
    let address = task.address()?.octets();
    ensure!(answer.starts_with(&QUERY[..2]) && answer.ends_with(&address), "the answer is {answer:?}");
    Ok(())
}

/// Waits until the sockets of so many tasks are kept.
fn of_tasks_are_kept(manager: &mut ServiceManager, count: usize) -> Result<()> {
    wait("the right sockets to be kept", SOON, || {
        ensure!(manager.kept()?.len() == count, "kept are {:?}", manager.kept()?);
        Ok(())
    })
}

#[test]
fn what_is_asked_during_a_restart_is_answered_where_sockets_are_kept() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        let mut manager = ServiceManager::new(node)?;
        node.stop()?;
        manager.start(node)?;
        create(node)?;
        cluster.wait_for_view()?;
        let (asker, mut other) = (task(cluster, "asker")?, task(cluster, "other")?);
        wait("names to be known", SOON, || {
            let known = asker.dig(&["other"])?;
            ensure!(known == [other.address()?.to_string()], "other is {known:?}");
            Ok(())
        })?;
        of_tasks_are_kept(&mut manager, 2)?;

        // Twice: what was taken over is kept still.
        for round in ["first", "second"] {
            node.kill()?;
            let udp = socket(&asker, PATIENCE)?;
            udp.send(QUERY).context("asking")?;
            let mut tcp = asker.inside(|| TcpStream::connect(SERVER))?.context("connecting")?;
            tcp.set_read_timeout(Some(PATIENCE)).context("a socket's timeout")?;
            tcp.write_all(&[&(QUERY.len() as u16).to_be_bytes(), QUERY].concat())
                .context("asking over TCP")?;
            // Somebody's who is not there any more: to be forgotten, and closed.
            let stray = NetNs::create(&Prefix::unique().namespace(&format!("stray-{round}")))?;
            let forgotten = stray.run(|| UdpSocket::bind("127.0.0.11:53"))?.context("a stray socket")?;
            manager.keep("dns-0stray", vec![OwnedFd::from(forgotten)]);
            manager.start(node)?;
            let mut buffer = [0; 512];
            let length = udp.recv(&mut buffer).with_context(|| format!("{round}: no answer over UDP"))?;
            found(&buffer[..length], &other)?;
            let mut length = [0; 2];
            tcp.read_exact(&mut length).with_context(|| format!("{round}: no answer over TCP"))?;
            let mut answer = vec![0; u16::from_be_bytes(length).into()];
            tcp.read_exact(&mut answer).context("the answer over TCP")?;
            found(&answer, &other)?;
            wait("the stray socket to be forgotten", SOON, || {
                ensure!(!manager.kept()?.contains_key("dns-0stray"), "kept are {:?}", manager.kept()?);
                Ok(())
            })?;
            of_tasks_are_kept(&mut manager, 2)?;
        }
        // A task that ends leaves nothing to be kept: it would keep the namespace.
        other.stop()?;
        of_tasks_are_kept(&mut manager, 1)
    })
}

#[test]
fn without_such_a_manager_one_retry_is_enough() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        create(node)?;
        cluster.wait_for_view()?;
        let (asker, other) = (task(cluster, "asker")?, task(cluster, "other")?);
        let asked = socket(&asker, FIRST_TRY)?;
        let mut buffer = [0; 512];
        // What a client of libc does with one name server: one try, and another one.
        let mut ask = || -> Result<()> {
            asked.send(QUERY)?;
            let length = asked.recv(&mut buffer)?;
            found(&buffer[..length], &other)
        };
        wait("names to be known", SOON, &mut ask)?;
        for _ in 0..3 {
            node.kill()?;
            // Nobody listens: this is told at once, and the socket remembers it for the next send.
            ensure!(ask().is_err(), "something answers without a daemon");
            node.start()?;
            if let Err(error) = ask() {
                ask().with_context(|| format!("a second try after: {error:#}"))?;
            }
        }
        Ok(())
    })
}
