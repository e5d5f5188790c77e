//! Managers: made and unmade, backed up, restored, and what is told without a majority of them.

use std::{fs, os::unix::fs::PermissionsExt};

use tonic::Code;

use crate::fake::{Fake, Script};

fn fake() -> Fake {
    Fake::start(Script::default())
}

#[test]
fn promote_and_demote() {
    let fake = fake();
    assert_eq!(fake.print("node promote n2 n3"), "Node n2 is a manager now.\nNode n3 is a manager now.\n");
    assert_eq!(fake.print("node demote n2"), "Node n2 is a worker now.\n");
    fake.print("node demote --force n2");
    let asked = fake.asked();
    assert!(asked[0].contains("node: \"n2\"") && asked[0].contains("role: Manager"), "{asked:?}");
    assert!(asked[2].contains("role: Worker") && asked[2].contains("force: false"), "{asked:?}");
    assert!(asked[3].contains("force: true"), "{asked:?}");
    assert_eq!(fake.json("node promote n2")[0]["role"], "manager");
}

#[test]
fn some_of_several_may_fail() {
    let outcome = fake().run("node promote n2 red n3");
    assert_eq!(outcome.code, Some(1));
    assert_eq!(outcome.text, "Node n2 is a manager now.\nNode n3 is a manager now.\n");
    assert!(outcome.errors.contains("cannot promote node red: no such node: red"), "{}", outcome.errors);
    let refusing = Fake::refusing(Code::FailedPrecondition, "without n2 the managers lose their majority");
    let outcome = refusing.run("node demote n2");
    assert_eq!((outcome.code, outcome.text.as_str()), (Some(1), ""));
    assert!(outcome.errors.contains("cannot demote node n2: without n2"), "{}", outcome.errors);
}

#[test]
fn backup_and_restore() {
    let fake = fake();
    let file = fake.folder().join("backup");
    let path = file.display().to_string();
    let printed = fake.print(&format!("cluster backup {path}"));
    assert!(printed.contains(&path) && printed.contains("secret"), "{printed}");
    assert!(fs::read(&file).unwrap().starts_with(b"meshd backup\n"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = fake.run(&format!("cluster backup {path}"));
    assert!(again.code == Some(1) && again.errors.contains(&path), "{}", again.errors);

    let restore = format!("cluster restore --name n1 --listen-addr 192.168.1.1 {path}");
    let printed = fake.print(&restore);
    assert!(printed.contains("its only manager"), "{printed}");
    let asked = fake.asked().pop().unwrap();
    assert!(asked.contains("name: \"n1\"") && asked.contains("listen_addr: \"192.168.1.1:2377\""), "{asked}");
    let missing = fake.run("cluster restore /nowhere/backup");
    assert!(missing.code == Some(1) && missing.errors.contains("/nowhere/backup"), "{}", missing.errors);
    let refusing = Fake::refusing(Code::FailedPrecondition, "the backup is damaged");
    let refused = refusing.run(&format!("cluster restore {path}"));
    assert!(refused.errors.contains(&path) && refused.errors.contains("is damaged"), "{}", refused.errors);
}

#[test]
fn a_new_cluster_by_force_takes_no_other_options() {
    let fake = fake();
    let printed = fake.print("init --force-new-cluster");
    assert!(printed.contains("only manager") && !printed.contains("MESHTKN"), "{printed}");
    assert!(fake.asked()[0].contains("force_new_cluster: true"), "{:?}", fake.asked());
    assert_eq!(fake.run("init --force-new-cluster --ipv6").code, Some(2));
}

#[test]
fn what_may_be_old_is_said_so() {
    let warning = "no majority of managers: this is what this node knew last";
    let script = Script { warnings: vec![warning.to_owned()], ..Script::default() };
    let outcome = Fake::start(script).run("network ls -q");
    assert_eq!(outcome.code, Some(0));
    assert_eq!(outcome.text.lines().count(), 3);
    assert_eq!(outcome.errors, format!("meshctl: {warning}\n"));
}
