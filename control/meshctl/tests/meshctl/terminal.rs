//! What people see: tables at several widths, templates, colours, and names that mean harm.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    process::Stdio,
};

use nix::pty::{Winsize, openpty};

use crate::fake::{Fake, Script};

/// What a verb prints on a terminal of so many columns.
fn on_terminal(fake: &Fake, columns: u16, words: &[&str]) -> String {
    let size = Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None).unwrap();
    let mut command = fake.command(words);
    command.env_remove("NO_COLOR").env("TERM", "xterm");
    command.stdout(Stdio::from(pty.slave)).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // Its own end of the terminal goes with it, so that reading ends when the child does.
    drop(command);
    let (mut text, mut part, mut terminal) = (Vec::new(), [0; 4096], File::from(pty.master));
    loop {
        match terminal.read(&mut part) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // EIO: nobody has the other end any more.
            Err(_) => break,
        }
    }
    let ended = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
    assert!(ended.status.success(), "{words:?}");
    String::from_utf8(text).unwrap().replace("\r\n", "\n")
}

fn plainly(fake: &Fake, columns: u16, words: &str) -> String {
    let words: Vec<_> = ["--color", "never"].into_iter().chain(words.split_whitespace()).collect();
    on_terminal(fake, columns, &words)
}

#[test]
fn tables_fit_the_terminal() {
    let fake = Fake::start(Script::default());
    assert_eq!(plainly(&fake, 120, "node ls"), fake.print("node ls"));
    assert_eq!(
        plainly(&fake, 80, "node ls"),
        "\
ID            HOSTNAME  STATUS  AVAILABILITY  ROLE     MANAGER  ADDRESS
1node0000000  n1 *      ready   active        manager  leader   192.168.1.1
2node0000000  n2        ready   active        worker   -        192.168.1.2
3node0000000  n3        down    active        worker   -        192.168.1.3
"
    );
    assert_eq!(
        plainly(&fake, 60, "node ls"),
        "\
ID            HOSTNAME  STATUS  ROLE     ADDRESS
1node0000000  n1 *      ready   manager  192.168.1.1
2node0000000  n2        ready   worker   192.168.1.2
3node0000000  n3        down    worker   192.168.1.3
"
    );
    assert_eq!(
        plainly(&fake, 60, "service ls"),
        "\
ID            NAME  VIPS       TASKS  PORTS
2svc00000000  db               1
1svc00000000  web   10.10.3.2  2      *:80->80/tcp,
                                      *:8053->53/udp
"
    );
    assert_eq!(
        plainly(&fake, 20, "network ls --filter name=test"),
        "\
NETWORK ID: 3net00000000
NAME: test
DRIVER: overlay
VNI: 4098
SUBNETS: 10.10.4.0/24
FLAGS: attachable, internal
"
    );
    assert_eq!(plainly(&fake, 40, "node ls --no-trunc").lines().count(), 4, "as long as it takes");
    assert_eq!(plainly(&fake, 0, "node ls"), fake.print("node ls"), "a terminal that does not tell");
}

#[test]
fn pages_fit_the_terminal() {
    let fake = Fake::start(Script::default());
    for words in ["service inspect web", "network inspect prod", "status", "debug gossip"] {
        let page = plainly(&fake, 70, words);
        for line in page.lines() {
            // Lines of text are the terminal's to break.
            let is_text = line.starts_with("  port ") || line.starts_with("Gossip traffic");
            assert!(line.chars().count() <= 70 || is_text, "{words}: {line}");
        }
    }
}

#[test]
fn colours_are_the_terminals() {
    let fake = Fake::start(Script::default());
    let ls = ["node", "ls"];
    assert!(on_terminal(&fake, 120, &ls).contains("\u{1b}[32mready\u{1b}[0m"));
    let without = |fake: &Fake, words: &[&str]| {
        let output = fake.command(words).env("NO_COLOR", "1").output().unwrap();
        !String::from_utf8(output.stdout).unwrap().contains('\u{1b}')
    };
    assert!(
        without(&fake, &ls)
            && !on_terminal(&fake, 120, &["--color", "never", "node", "ls"]).contains('\u{1b}')
    );
    assert!(fake.print("--color always node ls").contains("\u{1b}[32mready"), "into a pipe too");
    assert!(!fake.print("node ls").contains('\u{1b}'));
}

#[test]
fn labels_that_mean_harm() {
    let fake = Fake::start(Script { hostile: true, ..Script::default() });
    let page = fake.print("network inspect test");
    assert!(page.contains("Labels:       team=\\u{1b}]0;x\\u{7}\\r\\n\\u{202e}b"), "{page}");
    // Programs get what is there, terminals do not.
    let template = ["network", "inspect", "--format", "{{index .Labels \"team\"}}", "test"];
    let output = fake.command(&template).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "\u{1b}]0;x\u{7}\r\n\u{202e}b\n");
    assert_eq!(on_terminal(&fake, 80, &template), "\\u{1b}]0;x\\u{7}\\r\n\\u{202e}b\n");
    assert_eq!(fake.json("network inspect test")[0]["labels"]["team"], "\u{1b}]0;x\u{7}\r\n\u{202e}b");
}

#[test]
fn templates() {
    let fake = Fake::start(Script::default());
    let print = |words: &[&str]| {
        let output = fake.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        print(&["node", "ls", "--format", r"{{.Name}}\t{{.ID}}"]).lines().next(),
        Some("n1\t1node00000000000000000000")
    );
    assert_eq!(
        print(&[
            "service",
            "ls",
            "--format",
            r"table {{.Name}}\t{{.TaskCount}}\t{{range .Networks}}{{.Network}} {{end}}"
        ]),
        "NAME   TASK COUNT\ndb     1            prod test\nweb    2            prod\n"
    );
    assert_eq!(
        print(&["network", "ls", "--filter", "name=test", "--format", "{{json .Labels}}"]),
        "{\"team\":\"web\"}\n"
    );
    assert_eq!(
        print(&["task", "inspect", "--format", "{{.Local.Flows}} {{.Health | upper}}", "web.1"]),
        "3 HEALTHY\n"
    );
    assert_eq!(print(&["status", "--format", "{{.DataPath.Drops.no_backend}}"]), "12\n");
    assert_eq!(print(&["network", "rm", "--format", "{{.ID}}", "prod"]), "2net000000000000000000000\n");
    let told = fake.run("node ls --format {{.Nmae}}");
    assert_eq!((told.code, told.text.as_str()), (Some(1), ""));
    assert!(told.errors.contains("there is no field .Nmae; there are .advertise_addr,"), "{}", told.errors);
    let told = fake.run("node ls --format {{.Name");
    assert_eq!(told.code, Some(2));
    assert!(told.errors.contains("a {{ has no }}"), "{}", told.errors);
}

#[test]
fn lists_by_filters_and_ids() {
    let fake = Fake::start(Script::default());
    for (words, lines) in [
        ("node ls -q --filter role=worker --filter status=ready", "2node0000000\n"),
        ("node ls -q --no-trunc --filter name=n1", "1node00000000000000000000\n"),
        ("service ls -q --filter mode=vip", "1svc00000000\n"),
        ("service ls -q --filter network=test", "2svc00000000\n"),
        ("service ls -q --filter port=8053", "1svc00000000\n"),
        ("service ps -q --filter node=n2 web", "2task0000000\n"),
        ("task ls -q --filter state=draining", "2task0000000\n"),
        ("task ls -q --filter network=test --filter node=n1", "4task0000000\n"),
        ("network ls -q --filter internal=true", "3net00000000\n"),
        ("network ls -q --filter name=ingress --filter name=prod", "1net00000000\n2net00000000\n"),
        ("network ls -q --filter label=team --filter label=team=db", ""),
    ] {
        assert_eq!(fake.print(words), lines, "{words}");
    }
}

#[test]
fn a_shell_asks_for_names() {
    let fake = Fake::start(Script::default());
    let complete = |words: &[&str]| {
        let mut command = fake.command(&[]);
        command.env_clear().env("COMPLETE", "fish").env("MESHCTL_SOCKET", fake.socket());
        // As the script of the shell does.
        let mut asked = std::process::Command::new(command.get_program());
        asked.env_clear().env("COMPLETE", "fish").env("MESHCTL_SOCKET", fake.socket());
        let output = asked.arg("--").arg("meshctl").args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(complete(&["network", "inspect", "p"]), "prod\n");
    assert_eq!(
        complete(&["service", "ps", ""]).lines().filter(|line| !line.starts_with('-')).collect::<Vec<_>>(),
        ["db", "web"]
    );
    assert!(complete(&["task", "drain", "web"]).contains("web.1\nweb.2\n"));
    assert!(complete(&["node", "rm", "n"]).contains("n1\nn2\nn3\n"));
    let names = |text: String| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('-')).map(str::to_owned).collect()
    };
    let pinged = names(complete(&["ping", ""]));
    assert!(["n1", "n3", "web.1"].iter().all(|name| pinged.iter().any(|there| there == name)), "{pinged:?}");
    let captured = names(complete(&["capture", ""]));
    assert!(["web", "web.1"].iter().all(|name| captured.iter().any(|there| there == name)), "{captured:?}");
    assert!(!captured.iter().any(|there| there == "n1"), "{captured:?}");
    assert!(complete(&["netw"]).starts_with("network"));
    assert!(complete(&["run", "--network", "te"]).starts_with("test"));
}

#[test]
fn manual_pages() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_meshctl"));
    let output = command.args(["--socket", "/no/such/socket", "man"]).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let page = std::fs::read_to_string(folder.path().join("meshctl-network-create.1")).unwrap();
    assert!(page.contains("\\-\\-subnet") && page.contains("Examples:"), "{page}");
    assert!(folder.path().join("meshctl.1").exists() && !folder.path().join("meshctl-man.1").exists());
}
