//! Changes for one version only, networks and services in all that can change, and the stream of events.

use std::time::Duration;

use mesh_api::v1::{self, control_client::ControlClient};
use tonic::Code;

use crate::support::*;

fn network(name: &str, subnet: &str) -> v1::CreateNetworkRequest {
    let subnets = vec![v1::Subnet { net: subnet.into(), gateway: String::new() }];
    v1::CreateNetworkRequest { name: name.into(), subnets, ..Default::default() }
}

fn place(network: &str, aliases: &[&str]) -> v1::ServiceAttachment {
    let aliases = aliases.iter().map(|&alias| alias.to_owned()).collect();
    v1::ServiceAttachment { network: network.into(), aliases }
}

#[tokio::test]
async fn what_is_wanted_changes_for_one_version_only_and_is_told() {
    let home = Home::new();
    let manager = home.init().await;
    let mut control = ControlClient::new(dial(&manager, manager.identity().clone()).await);
    let mut events = control.events(v1::EventsRequest { since_millis: None }).await.unwrap().into_inner();

    let request = v1::CreateNetworkRequest {
        aux_addresses: [("router".to_owned(), "10.9.0.9".to_owned())].into(),
        ..network("a", "10.9.0.0/24")
    };
    let a = control.create_network(request).await.unwrap().into_inner();
    assert_eq!(a.aux_addresses["router"], "10.9.0.9");
    let b = control.create_network(network("b", "10.9.1.0/24")).await.unwrap().into_inner();
    assert!(b.version > a.version);
    let change = v1::UpdateNetworkRequest {
        network: "a".into(),
        expected_version: Some(a.version),
        attachable: Some(true),
        ..Default::default()
    };
    let now = control.update_network(change.clone()).await.unwrap().into_inner();
    assert!(now.attachable && now.version > b.version);
    let change = v1::UpdateNetworkRequest { attachable: Some(false), ..change };
    let status = control.update_network(change).await.unwrap_err();
    assert_says(&status, Code::Aborted, &["network a", "changed meanwhile"]);

    let request = v1::CreateServiceRequest {
        name: "web".into(),
        attachments: vec![place("a", &["www"])],
        networks: vec![b.id[..12].to_owned()],
        aliases: vec!["all".into()],
        ..Default::default()
    };
    let web = control.create_service(request).await.unwrap().into_inner();
    assert_eq!(web.networks[0].aliases, ["www", "all"]);
    assert_eq!(web.networks[1].aliases, ["all"]);
    let change = v1::UpdateServiceRequest {
        service: "web".into(),
        expected_version: Some(web.version),
        remove_networks: vec!["b".into()],
        add_networks: vec![place("ingress", &[])],
        add_aliases: vec![v1::AliasChange { network: "a".into(), alias: "shop".into() }],
        endpoint_mode: v1::EndpointMode::Dnsrr.into(),
        ..Default::default()
    };
    let now = control.update_service(change.clone()).await.unwrap().into_inner();
    assert_eq!((now.networks.len(), now.networks[0].aliases.len(), now.networks[0].vips.len()), (2, 3, 0));
    let status = control.update_service(change.clone()).await.unwrap_err();
    assert_says(&status, Code::Aborted, &["service web", &now.version.to_string()]);
    let unknown = v1::UpdateServiceRequest { add_networks: vec![place("x", &[])], ..change };
    assert_says(&control.update_service(unknown).await.unwrap_err(), Code::NotFound, &["network: x"]);
    let request = v1::CreateNetworkRequest { ingress: true, ..network("other", "10.9.2.0/24") };
    let status = control.create_network(request.clone()).await.unwrap_err();
    assert_says(&status, Code::FailedPrecondition, &["ingress", "web"]);
    let removal = |reference: &str, version| v1::RemoveRequest {
        reference: reference.to_owned(),
        expected_version: Some(version),
    };
    let status = control.remove_service(removal("web", web.version)).await.unwrap_err();
    assert_says(&status, Code::Aborted, &["service web", "changed meanwhile"]);
    control.remove_service(removal("web", now.version)).await.unwrap();
    let status = control.remove_network(removal("b", b.version + 1)).await.unwrap_err();
    assert_says(&status, Code::Aborted, &["network b", "changed meanwhile"]);
    assert!(control.create_network(request).await.unwrap().into_inner().ingress);

    // Steps that the manager saw together are one, so only the last word on each object is sure to come.
    let mut last = std::collections::BTreeMap::new();
    while last.get("ingress") != Some(&"remove".to_owned()) || !last.contains_key("other") {
        let next = tokio::time::timeout(Duration::from_secs(20), events.message()).await;
        let event = next.unwrap().unwrap().unwrap();
        last.insert(event.name, event.action);
    }
    assert_eq!(last["b"], "create");
    assert!(last["a"] == "update" || last["a"] == "create", "{last:?}");
    drop(events);
    manager.shutdown().await;
}
