use mesh_types::{ClusterId, Name, Node, Role};

use super::*;

fn node(number: u8) -> Node {
    Node {
        id: NodeId::from_u128(number.into()),
        name: Name::new(format!("n{number}")).unwrap(),
        role: Role::Worker,
        advertise_addr: IpAddr::from([10, 0, 0, number]),
        data_path_addr: IpAddr::from([10, 0, 0, number]),
        availability: mesh_types::Availability::Active,
        labels: [].into(),
        joined_at: 0,
        version: 1,
    }
}

fn view(version: u64, nodes: &[u8]) -> ClusterView {
    ClusterView {
        cluster: ClusterId::from_u128(1),
        version,
        nodes: nodes.iter().map(|number| (NodeId::from_u128((*number).into()), node(*number))).collect(),
        networks: BTreeMap::new(),
        services: BTreeMap::new(),
        gossip_keys: vec![[1; 32]],
        ca_generation: 1,
    }
}

fn whole(view: &ClusterView) -> v1::NodeState {
    let lease = v1::NetworkLease {
        network_id: NetworkId::from_u128(5).to_string(),
        addresses: vec!["10.1.0.2".to_owned()],
        scarce: false,
    };
    v1::NodeState { view: Some(view.into()), leases: vec![lease], ..Default::default() }
}

fn change(from: u64, now: &ClusterView, removed: &[u8]) -> v1::NodeState {
    let change = ViewChange {
        from,
        now: now.clone(),
        removed_nodes: removed.iter().map(|number| NodeId::from_u128((*number).into())).collect(),
        removed_networks: vec![],
        removed_services: vec![],
    };
    v1::NodeState {
        change: Some((&change).into()),
        same_leases: true,
        same_listeners: true,
        ..Default::default()
    }
}

#[test]
fn a_change_makes_the_next_state_of_the_one_before() {
    let first = heard(None, whole(&view(4, &[1, 2]))).unwrap();
    let second = heard(Some(first.clone()), change(4, &view(7, &[3]), &[2])).unwrap();
    assert_eq!(*second.view, view(7, &[1, 3]));
    assert_eq!(second.leases, first.leases);
    assert_eq!(*first.view, view(4, &[1, 2]), "who holds the one before keeps it");
    let mut other = change(7, &view(8, &[]), &[]);
    other.same_leases = false;
    assert!(heard(Some(second), other).unwrap().leases.is_empty());
}

#[test]
fn what_cannot_be_followed_is_an_error() {
    let first = heard(None, whole(&view(4, &[1]))).unwrap();
    assert!(heard(None, change(4, &view(5, &[2]), &[])).is_err(), "nothing was told before");
    assert!(heard(Some(first.clone()), change(3, &view(5, &[2]), &[])).is_err(), "one was missed");
    let other = ClusterView { cluster: ClusterId::from_u128(2), ..view(5, &[2]) };
    assert!(heard(Some(first.clone()), change(4, &other, &[])).is_err(), "of another cluster");
    assert!(heard(Some(first.clone()), v1::NodeState::default()).is_err());
    // A manager that knows no changes tells the whole again.
    assert_eq!(*heard(Some(first), whole(&view(6, &[2]))).unwrap().view, view(6, &[2]));
}
