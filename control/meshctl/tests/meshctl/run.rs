//! `meshctl run`, as root, with real namespaces.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Stdio},
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
        .command(&["run", "--network", "prod", "--name", "web.1", "--", "sh", "-c", script, "sh"])
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
    assert!(asked.contains("name: \"web.1\""), "{asked}");
}

#[test]
fn names_are_the_tasks_own() {
    let fake = fake();
    let before = nix::unistd::gethostname().unwrap();
    let words = "run --network prod --hostname db-1 --dns 192.0.2.53 --dns-search corp.example --dns-option ndots:2 -- hostname";
    let output = fake.command(&words.split(' ').collect::<Vec<_>>()).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "db-1\n");
    assert_eq!(nix::unistd::gethostname().unwrap(), before, "the host's own is another");
    let asked = fake.asked().join("\n");
    let dns =
        "servers: [\"192.0.2.53\"], search: [\"corp.example\"], options: [\"ndots:2\"], hostname: \"db-1\"";
    assert!(asked.contains(dns), "{asked}");
    // What one option alone does not show is refused before anything is asked for, too.
    for (words, problem) in [
        ("--dns 192.0.2.1 --dns 192.0.2.2 --dns 192.0.2.3 --dns 192.0.2.4", "at most 3"),
        ("--dns-search . --dns-search a", "stands for none"),
    ] {
        let told = fake.run(&format!("run --network prod {words} -- true"));
        assert_eq!(told.code, Some(2), "{}", told.errors);
        assert!(told.errors.contains(problem), "{}", told.errors);
    }
    assert_eq!(fake.callers().len(), 1);
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

/// `meshctl run --service` of a shell script, once that has said `ready`.
fn service_task(fake: &Fake, options: &[&str], script: &str) -> (Child, BufReader<ChildStdout>) {
    let mut command = fake.command(&["run", "--service", "web"]);
    command.args(options).args(["--", "sh", "-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, lines)
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// What is printed until the end, on stdout and stderr, and how it ends.
fn end(child: Child, mut lines: BufReader<ChildStdout>) -> (String, String, Option<i32>) {
    let mut text = String::new();
    lines.read_to_string(&mut text).unwrap();
    let output = child.wait_with_output().unwrap();
    (text, String::from_utf8(output.stderr).unwrap(), output.status.code())
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const LOOP: &str = "echo ready; while :; do sleep 0.01; done";

#[test]
fn a_task_of_a_service_drains_before_it_stops() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let fake = Fake::start(Script { drains: 4, flows_cut: 1, ..Script::default() });
        let script = format!("trap 'echo quit; exit 3' QUIT; trap 'echo term' TERM INT; {LOOP}");
        let (child, lines) = service_task(&fake, &["--stop-signal", "QUIT"], &script);
        assert_eq!(fake.callers()[0].pid, child.id(), "the task is meshctl's own process");
        kill(pid_of(&child), signal).unwrap();
        let (text, errors, code) = end(child, lines);
        assert_eq!((text.as_str(), code), ("quit\n", Some(3)));
        assert!(errors.contains("1 connection was still open"), "{errors}");
        let asked = fake.asked().join("\n");
        assert!(asked.contains("DrainTaskRequest") && asked.contains("GetTaskRequest"), "{asked}");
        assert!(!is_in_use(&fake.callers()[0].network_namespace));
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let fake = Fake::start(Script { drains: usize::MAX, ..Script::default() });
    let script = format!("trap 'echo term; exit 4' TERM; {LOOP}");
    let (child, lines) = service_task(&fake, &[], &script);
    kill(pid_of(&child), Signal::SIGINT).unwrap();
    wait_until("it does not drain", || fake.asked().iter().any(|asked| asked.contains("DrainTask")));
    kill(pid_of(&child), Signal::SIGINT).unwrap();
    assert_eq!(end(child, lines), ("term\n".to_owned(), String::new(), Some(4)));
}

#[test]
fn a_daemon_that_cannot_drain_keeps_nothing_from_stopping() {
    let fake = fake();
    let (child, lines) = service_task(&fake, &[], &format!("trap 'exit 5' TERM; {LOOP}"));
    drop(fake);
    kill(pid_of(&child), Signal::SIGTERM).unwrap();
    let (_, errors, code) = end(child, lines);
    assert_eq!(code, Some(5));
    assert!(errors.contains("without being drained"), "{errors}");
}

#[test]
fn other_signals_and_exit_codes_are_the_commands() {
    let fake = fake();
    let (child, lines) = service_task(&fake, &[], &format!("trap 'echo hup; exit 6' HUP; {LOOP}"));
    kill(pid_of(&child), Signal::SIGHUP).unwrap();
    assert_eq!(end(child, lines), ("hup\n".to_owned(), String::new(), Some(6)));
    let (child, lines) = service_task(&fake, &[], "echo ready; kill -KILL $$");
    assert_eq!(end(child, lines).2, Some(128 + 9));
    let outcome = fake.run("run --service web -- no-such-command --help");
    assert_eq!(outcome.code, Some(127));
    assert_eq!(outcome.errors, "meshctl: cannot start no-such-command: no such file\n");
    assert!(!fake.asked().iter().any(|asked| asked.contains("DrainTask")));
}

#[test]
fn the_command_does_not_outlive_meshctl() {
    let fake = fake();
    let (mut child, mut lines) = service_task(&fake, &[], "echo ready; echo $$; exec sleep 1000");
    let mut command = String::new();
    lines.read_line(&mut command).unwrap();
    let process = PathBuf::from(format!("/proc/{}", command.trim()));
    assert!(process.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    // It is a zombie until whoever inherited it looks.
    wait_until("it runs on", || {
        let status = std::fs::read_to_string(process.join("status"));
        status.map_or(true, |status| status.contains("State:\tZ"))
    });
}

#[test]
fn a_command_that_reads_from_the_terminal_gets_it() {
    let fake = fake();
    let command =
        fake.command(&["run", "--service", "web", "--", "sh", "-c", "read line; echo \"got $line\""]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    // Gives it a terminal, in whose foreground meshctl is.
    let mut terminal = std::process::Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
    let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = terminal.stdin.take().unwrap();
    input.write_all(b"hello\n").unwrap();
    let mut text = String::new();
    terminal.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    drop(input);
    assert_eq!(terminal.wait().unwrap().code(), Some(0), "{text}");
    assert!(text.contains("got hello"), "{text}");
}
