//! The CA, the cluster's settings and the lock of managers.

use std::{
    io::Write as _,
    process::{Output, Stdio},
};

use tonic::Code;

use crate::fake::{Fake, Script};

fn fake() -> Fake {
    Fake::start(Script::default())
}

/// `meshctl unlock` with `key` on standard input.
fn unlock(fake: &Fake, key: &str) -> Output {
    let mut command = fake.command(&["unlock"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    running.stdin.take().unwrap().write_all(key.as_bytes()).unwrap();
    running.wait_with_output().unwrap()
}

#[test]
fn ca_shows_who_is_late() {
    let fake = fake();
    assert_eq!(
        fake.print("ca"),
        "\
-----BEGIN CERTIFICATE-----
AAAA
-----END CERTIFICATE-----
Digest: digest
State:  being rotated; these nodes have no new certificate yet: n2

ID             HOSTNAME   CERTIFICATE
1node0000000   n1         current
2node0000000   n2         to be renewed
"
    );
    let json = fake.json("ca");
    assert_eq!((json["generation"].as_u64(), json["rotating"].as_bool()), (Some(3), Some(false)));
}

#[test]
fn ca_rotate_waits_if_it_is_to() {
    let fake = fake();
    let printed = fake.print("ca rotate");
    assert!(printed.contains("being rotated"), "{printed}");
    assert_eq!(fake.asked(), ["RotateCaRequest"]);
    let printed = fake.print("ca rotate --wait");
    assert!(printed.contains("every node has a certificate of it"), "{printed}");
    assert_eq!(fake.asked().iter().filter(|asked| *asked == "GetCaRequest").count(), 2);
    let refused =
        Fake::refusing(Code::FailedPrecondition, "the CA is being rotated already").run("ca rotate");
    assert_eq!(refused.code, Some(1));
    assert!(refused.errors.contains("cannot rotate the CA: the CA is being rotated already"), "{refused:?}");
    assert_eq!(fake.run("ca --timeout 5s").code, Some(2), "nothing is waited for");
}

#[test]
fn cluster_update_says_what_it_changed() {
    let fake = fake();
    let printed = fake.print("cluster update --cert-expiry 30d");
    assert!(printed.contains("valid for 30d") && printed.contains("autolock is off"), "{printed}");
    assert!(
        fake.asked()[0].contains("cert_expiry_secs: Some(2592000), autolock: None"),
        "{:?}",
        fake.asked()
    );
    let printed = fake.print("cluster update --autolock=true");
    assert!(printed.contains("\n    MESHKEY-1-abc\n") && printed.contains("meshctl unlock"), "{printed}");
    assert_eq!(fake.json("cluster update --autolock")["unlock_key"], "MESHKEY-1-abc");
    assert!(fake.json("cluster update --autolock=false").get("unlock_key").is_none());
    assert_eq!(fake.run("cluster update").code, Some(2), "nothing is to be changed");
    assert_eq!(fake.run("cluster update --cert-expiry 5").code, Some(2));
}

#[test]
fn the_gossip_key_is_replaced_and_shown() {
    let fake = fake();
    assert_eq!(
        fake.print("cluster rotate-gossip-keys"),
        "The gossip key is being replaced; `meshctl cluster inspect` shows how far that is.\n"
    );
    assert_eq!(fake.asked(), ["RotateGossipKeysRequest"]);
    let page = fake.print("cluster inspect");
    for part in [
        "Cluster:       1cluster00000000000000000\n",
        "Certificates:  valid for 90d\n",
        "Autolock:      off\n",
        "Lease grace:   3d\n",
        "Gossip key:    in use since 2023-11-14T22:13:20Z, for 12h each\n",
        "Gossip ring:   2 keys; nodes get the next one, these have not confirmed it yet: n2\n",
    ] {
        assert!(page.contains(part), "{page}");
    }
    let keys = &fake.json("cluster inspect")[0]["gossip_keys"];
    assert_eq!((keys["phase"].as_str(), keys["waiting"][0].as_str()), (Some("spreading"), Some("n2")));
    fake.print("cluster update --gossip-key-rotation 1h");
    assert!(fake.asked().last().unwrap().contains("gossip_rotation_secs: Some(3600)"), "{:?}", fake.asked());
    let refused = Fake::refusing(Code::FailedPrecondition, "the gossip key is being replaced already");
    let told = refused.run("cluster rotate-gossip-keys").errors;
    assert!(
        told.contains("cannot replace the gossip key: the gossip key is being replaced already"),
        "{told}"
    );
}

#[test]
fn the_unlock_key_is_printed_and_never_a_word_of_the_command_line() {
    let fake = fake();
    assert_eq!(fake.print("unlock-key -q"), "MESHKEY-1-abc\n");
    assert!(fake.print("unlock-key --rotate").contains("    MESHKEY-1-abc\n"));
    assert!(fake.asked()[1].contains("rotate: true"));
    assert_eq!(fake.run("unlock MESHKEY-1-abc").code, Some(2));

    let unlocked = unlock(&fake, "MESHKEY-1-abc\n");
    assert_eq!(String::from_utf8(unlocked.stdout).unwrap(), "This manager is unlocked.\n");
    assert!(fake.asked()[2].contains("MESHKEY-1-abc"));
    let nothing = unlock(&fake, "\n");
    assert_eq!(nothing.status.code(), Some(1));
    assert!(String::from_utf8(nothing.stderr).unwrap().contains("no key was given"));
}
