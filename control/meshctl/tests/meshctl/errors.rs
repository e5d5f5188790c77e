//! What is told when something fails, and the exit codes.

use std::{
    io::Read,
    os::unix::{fs::PermissionsExt, net::UnixListener, process::CommandExt},
    process::Command,
    time::Duration,
};

use tonic::Code;

use crate::fake::{Fake, Outcome, Script};

fn outcome(command: &mut Command) -> Outcome {
    Outcome::from(command.output().unwrap())
}

#[test]
fn a_daemon_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("meshd.sock");
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    command.env("MESHCTL_SOCKET", &socket).args(["node", "ls"]);
    let told = outcome(&mut command);
    assert_eq!((told.code, told.text.as_str()), (Some(69), ""));
    let first = format!("meshctl: cannot reach the daemon at {}: no such file", socket.display());
    assert_eq!(told.errors.lines().next(), Some(first.as_str()));
    assert!(told.errors.contains("systemctl start meshd"), "{}", told.errors);

    // A daemon that was killed leaves its socket.
    drop(UnixListener::bind(&socket).unwrap());
    let told = outcome(&mut command);
    assert_eq!(told.code, Some(69));
    assert!(told.errors.contains("nobody listens there"), "{}", told.errors);
}

#[test]
fn the_last_socket_counts() {
    let fake = Fake::start(Script::default());
    let told = fake.run("--socket /nowhere/meshd.sock node ls");
    assert_eq!(told.code, Some(69));
    assert!(told.errors.contains("/nowhere/meshd.sock"), "{}", told.errors);
}

#[test]
fn a_daemon_that_hangs_up() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("meshd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let hang_up = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        // All that meshctl has to say before it waits.
        while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    let told = outcome(command.arg("--socket").arg(&socket).args(["leave"]));
    hang_up.join().unwrap();
    assert_eq!(told.code, Some(69), "{told:?}");
    assert_eq!(
        told.errors,
        "meshctl: cannot leave the cluster: the connection to the daemon broke before it answered\n\
         See `systemctl status meshd` and `journalctl -u meshd`.\n"
    );
}

#[test]
fn not_root() {
    let fake = Fake::start(Script::default());
    let readable = |mode| std::fs::Permissions::from_mode(mode);
    // The built binary may lie where only root gets.
    let program = fake.folder().join("meshctl");
    std::fs::copy(env!("CARGO_BIN_EXE_meshctl"), &program).unwrap();
    std::fs::set_permissions(fake.folder(), readable(0o755)).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("--socket").arg(fake.socket()).args(words).uid(65534).gid(65534).current_dir("/");
        outcome(&mut command)
    };

    std::fs::set_permissions(fake.socket(), readable(0o700)).unwrap();
    let told = run(&["node", "ls"]);
    assert_eq!(told.code, Some(69));
    assert!(told.errors.contains("permission denied\nRun meshctl as root"), "{}", told.errors);

    std::fs::set_permissions(fake.socket(), readable(0o777)).unwrap();
    let told = run(&["run", "--network", "prod", "--", "true"]);
    assert_eq!(told.code, Some(1));
    assert!(told.errors.contains("needs root"), "{}", told.errors);
    assert!(fake.asked().is_empty());
}

#[test]
fn the_daemons_words_as_they_are() {
    let words = "this node is a worker; ask a manager: 192.168.1.1:2377";
    let fake = Fake::refusing(Code::FailedPrecondition, words);
    for (verb, what) in [
        ("network create prod", "cannot create network prod"),
        ("service create web", "cannot create service web"),
        ("publish 80:80 web", "cannot publish 80:80/tcp of service web"),
        ("unpublish 80", "cannot unpublish 80/tcp"),
        ("join-token", "cannot get the workers' token"),
        ("network rm prod", "cannot remove network prod"),
        ("node rm n2", "cannot remove node n2"),
        ("init", "cannot make a cluster"),
        ("join --token T m1 m2", "cannot join the cluster of m1, m2"),
        ("leave", "cannot leave the cluster"),
        ("detach t", "cannot detach t"),
    ] {
        let told = fake.run(verb);
        assert_eq!((told.code, told.text.as_str()), (Some(1), ""), "{verb}");
        assert_eq!(told.errors, format!("meshctl: {what}: {words}\n"), "{verb}");
    }
}

#[test]
fn a_node_in_no_cluster() {
    let told = Fake::start(Script { inactive: true, ..Script::default() }).run("node ls");
    assert_eq!(told.code, Some(1));
    assert_eq!(
        told.errors,
        "meshctl: cannot list the nodes: this node is not in a cluster\n\
         Make a cluster with `meshctl init`, or join one with `meshctl join`.\n"
    );
    let refusal = Some((Code::FailedPrecondition, "the token is of another cluster".to_owned()));
    let told = Fake::start(Script { refusal, inactive: true, ..Script::default() }).run("join --token T m");
    assert_eq!(told.errors, "meshctl: cannot join the cluster of m: the token is of another cluster\n");
}

#[test]
fn a_daemon_of_another_version() {
    let told = Fake::refusing(Code::Unimplemented, "").run("init");
    assert_eq!(told.code, Some(1));
    assert!(
        told.errors.starts_with("meshctl: cannot make a cluster: the daemon does not know this request\n")
    );
    let told = Fake::refusing(Code::Unimplemented, "the kernel has no tcx").run("init");
    assert_eq!(told.errors, "meshctl: cannot make a cluster: the kernel has no tcx\n");
}

#[test]
fn unknown_and_ambiguous_references() {
    let fake = Fake::start(Script::default());
    let told = fake.run("network inspect prood");
    assert_eq!(told.code, Some(1));
    assert_eq!(told.errors, "meshctl: no such network: prood\n`meshctl network ls` lists them.\n");
    assert!(fake.run("service ps wob").errors.contains("no such service: wob"));
    let told = fake.run("attach --network prod no-such-namespace");
    assert_eq!(told.code, Some(1));
    assert!(told.errors.contains("netns/no-such-namespace"), "{}", told.errors);
    assert!(fake.asked().is_empty());
}

#[test]
fn wrong_usage() {
    let fake = Fake::start(Script::default());
    for words in
        ["", "nod ls", "network create", "network create --subnet 10.10.3.7/24 x", "publish 80:x web"]
    {
        let told = fake.run(words);
        assert_eq!((told.code, told.text.as_str()), (Some(2), ""), "{words}");
    }
    assert!(fake.run("network create -bad-").errors.contains("'-bad-'"));
    let told = fake.run("network create --subnet 10.10.3.0/24 --gateway 10.9.0.1 x");
    assert_eq!(told.code, Some(2));
    assert!(told.errors.contains("10.9.0.1"), "{}", told.errors);
    assert!(fake.asked().is_empty());
}

#[test]
fn a_daemon_that_answers_nonsense() {
    let told = Fake::start(Script { nonsense: true, ..Script::default() }).run("network ls");
    assert_eq!(told.code, Some(1));
    assert!(told.errors.contains("network.vni"), "{}", told.errors);
}

#[test]
fn a_reader_that_has_seen_enough() {
    let fake = Fake::start(Script::default());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let told = outcome(fake.command(&["node", "ls"]).stdout(writer).stderr(std::process::Stdio::piped()));
    assert_eq!((told.code, told.errors.as_str()), (Some(0), ""));
}
