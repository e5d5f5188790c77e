//! The verbs that look for faults, on canned answers.

use serde_json::Value;

use crate::fake::{Fake, Script};

#[test]
fn ping_counts_and_its_exit_code_tells() {
    let fake = Fake::start(Script::default());
    let text = fake.print("ping -c 2 -i 0.01 n2");
    assert!(
        text.starts_with("PING n2 (192.168.0.2) by its data path, from 192.168.0.1: 84 bytes\n"),
        "{text}"
    );
    assert!(text.contains("answer 2 from 192.168.0.2: time=1.234 ms\n"), "{text}");
    assert!(text.contains("2 asked, 2 answered, 0% lost"), "{text}");
    let lost = fake.run("ping -c 1 -s 9000 n2");
    assert_eq!(lost.code, Some(1));
    assert!(lost.text.contains("question 1: no answer within 1 s"), "{}", lost.text);
    assert_eq!(fake.json("ping -c 1 n2")["micros"], serde_json::json!([1234]));
    let unknown = fake.run("ping -c 1 n9");
    assert!(unknown.code == Some(1) && unknown.errors.contains("there is no node n9"), "{}", unknown.errors);
}

#[test]
fn a_test_of_connectivity_is_a_matrix_and_its_faults() {
    let outcome = Fake::start(Script::default()).run("connectivity test");
    assert_eq!(outcome.code, Some(1), "{}", outcome.errors);
    for line in ["n1 -> n2: tcp: no answer in time\n", "n2: no room\n", "1 nodes did not report"] {
        assert!(outcome.text.contains(line), "{line:?} in {}", outcome.text);
    }
}

#[test]
fn the_doctor_names_closed_ports_with_their_cure() {
    let outcome = Fake::start(Script::default()).run("--format json doctor");
    assert_eq!(outcome.code, Some(1), "{}", outcome.errors);
    let findings: Value = serde_json::from_str(&outcome.text).unwrap();
    let ports = findings.as_array().unwrap().iter().find(|f| f["check"] == "ports n2").unwrap();
    assert_eq!(ports["level"], "failure");
    assert!(ports["what"].as_str().unwrap().starts_with("7946/udp of this node"), "{ports}");
    assert!(ports["cure"].as_str().unwrap().contains("let 7946/udp into"), "{ports}");
}

#[test]
fn a_bundle_is_a_new_file_that_tar_reads() {
    let fake = Fake::start(Script::default());
    let path = fake.folder().join("bundle.tar.gz");
    let words = format!("debug bundle -o {}", path.display());
    assert_eq!(fake.print(&words).trim(), path.display().to_string());
    let listed = std::process::Command::new("tar").arg("-tzf").arg(&path).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for name in ["doctor.json", "status.txt", "view.txt", "gossip.txt", "nft.txt"] {
        assert!(listed.contains(name), "{name} in {listed}");
    }
    assert_eq!(fake.run(&words).code, Some(1), "nothing is overwritten");
}
