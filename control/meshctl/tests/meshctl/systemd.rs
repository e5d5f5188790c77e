//! Services of systemd: the files, as systemd itself judges them, and what their commands do.

use std::{fs, path::Path, process::Command};

use crate::fake::{Fake, Outcome, Script};

fn run(fake: &Fake, words: &[&str]) -> Outcome {
    Outcome::from(fake.command(words).output().unwrap())
}

#[test]
fn files_that_systemd_takes() {
    let fake = Fake::start(Script::default());
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    // Another file of the same folder, as the unit's package would have it.
    fs::write(folder.path().join("web@a.service"), "[Service]\nExecStart=/bin/sleep 1000\n").unwrap();
    fs::write(folder.path().join("meshd.service"), "[Service]\nExecStart=/bin/sleep 1000\n").unwrap();
    let attach = [
        "systemd-attach",
        "--unit-dir",
        dir,
        "--service",
        "web",
        "--name",
        "web.7",
        "--alias",
        "www",
        "web@a",
    ];
    let told = run(&fake, &attach);
    assert_eq!((told.code, told.errors.as_str()), (Some(0), ""), "{told:?}");
    assert_eq!(told.text, "web@a.service joins at its next start: `systemctl restart web@a.service`\n");
    let helper = fs::read_to_string(folder.path().join("meshd-netns-web-a.service")).unwrap();
    let up = "systemd-netns up --service=web --name=web.7 --alias=www web-a";
    assert!(helper.lines().any(|line| line.starts_with("ExecStart=") && line.ends_with(up)), "{helper}");
    assert!(helper.contains(fake.socket().to_str().unwrap()), "{helper}");
    let drop_in = folder.path().join("web@a.service.d/50-meshd.conf");
    assert!(fs::read_to_string(&drop_in).unwrap().contains("NetworkNamespacePath=/run/netns/meshd-web-a\n"));

    // Commands in them are looked for, and must be words as systemd reads them.
    let verify = |unit: &str| {
        let mut command = Command::new("systemd-analyze");
        command.env("SYSTEMD_UNIT_PATH", format!("{dir}:")).arg("verify").arg(folder.path().join(unit));
        let output = command.output().expect("systemd-analyze is needed (Debian: systemd)");
        String::from_utf8(output.stderr).unwrap()
    };
    for unit in ["meshd-netns-web-a.service", "web@a.service"] {
        let found = verify(unit);
        assert!(!found.contains("meshd-netns") && !found.contains("50-meshd"), "{unit}: {found}");
    }
    fs::write(&drop_in, "[Service]\nNetworkNamespacePth=/x\n").unwrap();
    assert!(verify("web@a.service").contains("50-meshd.conf"), "it does look at drop-ins");

    let told = run(&fake, &["systemd-detach", "--unit-dir", dir, "web@a.service"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(!drop_in.exists() && !drop_in.parent().unwrap().exists());
    assert!(folder.path().join("web@a.service").exists());
    let told = run(&fake, &["systemd-detach", "--unit-dir", dir, "web@a.service"]);
    assert_eq!(told.code, Some(1));
    assert!(told.errors.contains("it was not attached"), "{}", told.errors);
}

#[test]
fn a_name_that_is_not_there_is_told_before_anything_is_written() {
    let fake = Fake::start(Script::default());
    let folder = tempfile::tempdir().unwrap();
    let attach =
        ["systemd-attach", "--unit-dir", folder.path().to_str().unwrap(), "--network", "prood", "redis"];
    let told = run(&fake, &attach);
    assert_eq!(told.code, Some(1));
    assert_eq!(
        told.errors,
        "meshctl: cannot attach redis.service: no such network: prood\n`meshctl network ls` lists them.\n"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_would_be_written_is_shown() {
    let fake = Fake::start(Script::default());
    let text = fake.print("systemd-attach --network prod --print redis");
    assert!(text.starts_with("# /etc/systemd/system/meshd-netns-redis.service\n"), "{text}");
    assert!(text.contains("\n# /etc/systemd/system/redis.service.d/50-meshd.conf\n"), "{text}");
    assert!(!Path::new("/etc/systemd/system/meshd-netns-redis.service").exists());
    for (words, told) in [
        ("systemd-attach --network prod getty@", "is a template"),
        ("systemd-attach --network prod x.socket", "only services"),
        ("systemd-attach redis", "--network"),
        ("systemd-attach --network prod --dns-search a --dns-search . redis", "cannot attach redis.service"),
    ] {
        let refused = fake.run(words);
        assert!(refused.code == Some(2) && refused.errors.contains(told), "{words}: {}", refused.errors);
    }
}

/// In a mount namespace of its own, with a /run of its own, as root.
fn in_own_run(fake: &Fake, script: &str) -> Outcome {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc"]);
    command.arg(format!("mount -t tmpfs own /run\n{script}"));
    command.env("MESHCTL", env!("CARGO_BIN_EXE_meshctl")).env("MESHCTL_SOCKET", fake.socket());
    Outcome::from(command.output().unwrap())
}

#[test]
fn a_namespace_is_made_once_and_removed() {
    let fake = Fake::start(Script { resolv_conf: String::new(), ..Script::default() });
    let told = in_own_run(
        &fake,
        r#"
        own=$(readlink /proc/self/ns/net)
        $MESHCTL systemd-netns up --network prod redis
        first=$(nsenter --net=/run/netns/meshd-redis readlink /proc/self/ns/net)
        test "$first" != "$own"
        test -e /run/meshd-netns/redis/resolv.conf
        $MESHCTL systemd-netns up --network prod redis
        test "$first" = "$(nsenter --net=/run/netns/meshd-redis readlink /proc/self/ns/net)"
        test "$own" = "$(readlink /proc/self/ns/net)"
        $MESHCTL systemd-netns down redis
        test ! -e /run/netns/meshd-redis && test ! -e /run/meshd-netns/redis
        $MESHCTL systemd-netns down redis
        # What an interrupted attempt left is no namespace.
        touch /run/netns/meshd-redis
        $MESHCTL systemd-netns up --network prod redis
        nsenter --net=/run/netns/meshd-redis true
        $MESHCTL systemd-netns down redis
        echo done"#,
    );
    assert_eq!((told.code, told.text.as_str(), told.errors.as_str()), (Some(0), "done\n", ""));
    let asked = fake.asked();
    let attached = asked.iter().filter(|asked| asked.starts_with("AttachRequest")).count();
    assert_eq!(attached, 2, "the second of three found it there: {asked:?}");
    assert!(asked.iter().any(|asked| asked.contains("/run/netns/meshd-redis") && asked.contains("\"prod\"")));
}

#[test]
fn a_refusal_is_told_at_once() {
    let fake = Fake::refusing(tonic::Code::NotFound, "no such network: prood");
    let told = in_own_run(&fake, "$MESHCTL systemd-netns up --network prood redis");
    assert_eq!(told.code, Some(1));
    assert_eq!(
        told.errors,
        "meshctl: cannot make the network of redis: no such network: prood\n`meshctl network ls` lists them.\n"
    );
}
