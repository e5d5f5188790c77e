//! The CA's root, certificates in use, and the cluster's settings.

use mesh_store::{Command, NewRoot, Rejection, Response, Sensitive, State};
use mesh_types::NodeId;

use crate::common::*;

fn rotate(state: &mut State, number: u32) -> Result<Response, Rejection> {
    let replaces_pem = state.secrets().unwrap().ca_cert_pem.clone();
    state.apply(Command::RotateCa(Box::new(NewRoot {
        cert_pem: format!("root {number}"),
        key_pem: format!("key {number}"),
        cross_pem: format!("cross {number}"),
        replaces_pem,
    })))
}

fn in_use(state: &mut State, node: u8, generation: u64) {
    let node = NodeId::from_u128(node.into());
    state.apply(Command::CertificateInUse { node, generation }).unwrap();
}

fn generation(state: &State) -> u64 {
    assert_eq!(state.view().unwrap().ca_generation, state.authority().unwrap().generation);
    state.authority().unwrap().generation
}

#[test]
fn the_old_root_goes_when_every_node_has_a_certificate_of_the_new_one() {
    let mut state = cluster(3);
    assert_eq!((generation(&state), state.authority().unwrap().previous.is_none()), (1, true));
    rotate(&mut state, 2).unwrap();
    assert_eq!(state.secrets().unwrap().ca_cert_pem, "root 2");
    let previous = state.authority().unwrap().previous.clone().unwrap();
    assert_eq!((previous.cert_pem.as_str(), previous.cross_pem.as_str()), ("certificate", "cross 2"));
    assert_eq!(generation(&state), 2);
    assert_eq!(rotate(&mut state, 3), Err(Rejection::CaChanges));

    in_use(&mut state, 1, 2);
    in_use(&mut state, 2, 2);
    // Somebody who joins meanwhile is waited for, too.
    state.apply(Command::AddNode(node(4))).unwrap();
    in_use(&mut state, 3, 2);
    assert!(state.authority().unwrap().previous.is_some());
    in_use(&mut state, 4, 7);
    assert!(state.authority().unwrap().previous.is_some(), "no such generation yet");
    in_use(&mut state, 4, 2);
    assert!(state.authority().unwrap().previous.is_none());
    assert_eq!(generation(&state), 3, "everybody is to renew once more");
    rotate(&mut state, 3).unwrap();
    assert_eq!(generation(&state), 4);
}

#[test]
fn a_node_that_is_removed_is_not_waited_for() {
    let mut state = cluster(2);
    rotate(&mut state, 2).unwrap();
    in_use(&mut state, 1, 2);
    let gone = NodeId::from_u128(2);
    state.apply(Command::RemoveNode(gone)).unwrap();
    assert!(state.authority().unwrap().previous.is_none());
    let unknown = state.apply(Command::CertificateInUse { node: gone, generation: 3 });
    assert_eq!(unknown, Err(Rejection::UnknownNode(gone)));
    let mut other = NewRoot {
        cert_pem: "a".into(),
        key_pem: "b".into(),
        cross_pem: "c".into(),
        replaces_pem: "certificate".into(),
    };
    let stale = state.apply(Command::RotateCa(Box::new(other.clone())));
    assert_eq!(stale, Err(Rejection::CaChanges), "signed by a root that is the present one no more");
    other.replaces_pem = "root 2".into();
    state.apply(Command::RotateCa(Box::new(other.clone()))).unwrap();
    assert!(!format!("{:?}", Command::RotateCa(Box::new(other))).contains("key_pem"));
}

#[test]
fn settings_change_one_by_one_and_only_within_bounds() {
    let mut state = cluster(1);
    let mut update = |cert_validity_secs, unlock_key: Option<Option<[u8; 32]>>| {
        let unlock_key = unlock_key.map(|key| key.map(Sensitive));
        state.apply(Command::UpdateCluster { cert_validity_secs, unlock_key })?;
        let now = (state.authority().unwrap().validity_secs, state.unlock_key().copied());
        Ok::<_, Rejection>((now, state.version(), state.view_version()))
    };
    let (before, version, view_version) = update(None, None).unwrap();
    assert_eq!(before, (90 * 86_400, None));
    let (now, next, _) = update(Some(7_200), Some(Some([4; 32]))).unwrap();
    assert_eq!((now, next), ((7_200, Some([4; 32])), version + 1));
    let same = update(Some(7_200), None).unwrap();
    assert_eq!(same, (now, next, view_version), "nothing changed, and nobody is to be told");
    for given in [0, 3_599, u64::MAX] {
        assert_eq!(update(Some(given), Some(None)), Err(Rejection::CertValidity { given }));
    }
    assert_eq!(update(None, Some(None)).unwrap().0, (7_200, None));
}
