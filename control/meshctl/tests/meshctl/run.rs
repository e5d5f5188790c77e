//! `meshctl run`, as root, with real namespaces.

use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tonic::Code;

use crate::fake::{Caller, Fake, Outcome, Script};

const RESOLV_CONF: &str = "nameserver 127.0.0.11\noptions ndots:0\n";

fn fake() -> Fake {
    Fake::start(Script { resolv_conf: RESOLV_CONF.to_owned(), ..Script::default() })
}

fn own(kind: &str) -> PathBuf {
    std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap()
}

/// The only caller so far.
fn caller(fake: &Fake) -> Caller {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match fake.callers().as_slice() {
            [] => assert!(Instant::now() < deadline, "nobody attached"),
            [one] => return one.clone(),
            more => panic!("attached more than once: {more:?}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether any process is in the network namespace.
fn is_in_use(namespace: &Path) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .into_iter()
        .any(|entry| std::fs::read_link(entry.path().join("ns/net")).is_ok_and(|link| link == namespace))
}

#[test]
fn the_command_is_in_a_namespace_of_its_own() {
    let fake = fake();
    let before = std::fs::read_to_string("/etc/resolv.conf").unwrap();
    let outside = tempfile::Builder::new().prefix("meshctl-run-").tempfile_in("/tmp").unwrap();
    let script = "readlink /proc/self/ns/net; readlink /proc/self/ns/mnt; echo $$; ls $1; ls -d /sys/kernel; \
                  cat /etc/resolv.conf; exit 7";
    let output = fake
        .command(&[
            "run",
            "--network",
            "prod",
            "--service",
            "web",
            "--name",
            "web.1",
            "--",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(outside.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let process = output.id();
    let output = output.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));

    let caller = caller(&fake);
    assert_eq!(caller.pid, process, "the command is not meshctl's own process");
    assert_ne!(caller.network_namespace, own("net"));
    assert_ne!(caller.mount_namespace, own("mnt"));
    let expected = format!(
        "{}\n{}\n{process}\n{}\n/sys/kernel\n{RESOLV_CONF}",
        caller.network_namespace.display(),
        caller.mount_namespace.display(),
        outside.path().display(),
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert_eq!(std::fs::read_to_string("/etc/resolv.conf").unwrap(), before);
    assert!(!is_in_use(&caller.network_namespace));
    let asked = fake.asked().join("\n");
    assert!(asked.contains("name: \"web.1\"") && asked.contains("service: \"web\""), "{asked}");
}

#[test]
fn signals_are_the_commands() {
    let fake = fake();
    for (round, signal) in [Signal::SIGKILL, Signal::SIGTERM].into_iter().enumerate() {
        let mut child = fake.command(&["run", "--network", "prod", "--", "sleep", "1000"]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let name = format!("/proc/{}/comm", child.id());
        while std::fs::read_to_string(&name).unwrap() != "sleep\n" {
            assert!(Instant::now() < deadline, "sleep does not run");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(fake.callers()[round].pid, child.id());
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(signal as i32));
    }
}

#[test]
fn the_command_inherits_no_socket_and_no_ignored_signal() {
    let fake = fake();
    // What is open, and what is ignored, is the same as without meshctl.
    let words = ["sh", "-c", "ls /proc/$$/fd; grep SigIgn /proc/$$/status"];
    let alone = std::process::Command::new(words[0]).args(&words[1..]).output().unwrap();
    let inside = fake.command(&["run", "--network", "prod", "--"]).args(words).output().unwrap();
    assert_eq!(String::from_utf8(inside.stdout).unwrap(), String::from_utf8(alone.stdout).unwrap());
}

#[test]
fn a_refused_attach_leaves_nothing() {
    let fake = Fake::refusing(Code::FailedPrecondition, "network prod is not attachable");
    let marker = fake.folder().join("ran");
    let mut command = fake.command(&["run", "--network", "prod", "--name", "probe", "--", "touch"]);
    let outcome = Outcome::from(command.arg(&marker).output().unwrap());
    assert_eq!((outcome.code, outcome.text.as_str()), (Some(1), ""));
    assert_eq!(outcome.errors, "meshctl: cannot run task probe: network prod is not attachable\n");
    assert!(!marker.exists());
    let caller = caller(&fake);
    assert!(!Path::new(&format!("/proc/{}", caller.pid)).exists());
    assert!(!is_in_use(&caller.network_namespace));
}

#[test]
fn a_node_in_no_cluster() {
    let refusal = Some((Code::FailedPrecondition, "this node is not in a cluster".to_owned()));
    let fake = Fake::start(Script { refusal, inactive: true, ..Script::default() });
    let outcome = fake.run("run --network prod -- true");
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.errors.contains("meshctl init"), "{}", outcome.errors);
}

#[test]
fn a_command_that_cannot_be_started() {
    let fake = fake();
    let outcome = fake.run("run --network prod -- no-such-command --help");
    assert_eq!(outcome.code, Some(127));
    assert_eq!(outcome.errors, "meshctl: cannot start no-such-command: no such file\n");
    let outcome = fake.run("run --network prod -- /etc/resolv.conf");
    assert_eq!(outcome.code, Some(126));
    assert!(outcome.errors.contains("permission denied"), "{}", outcome.errors);
    assert!(fake.callers().iter().all(|caller| !is_in_use(&caller.network_namespace)));
}
