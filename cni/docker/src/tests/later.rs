//! What is waited for, and what a daemon that was killed left half done.

use std::{path::Path, time::Duration};

use mesh_api::v1::attach_request::Namespace;
use mesh_types::{Availability, ClusterView};
use serde_json::json;
use tonic::Code;

use super::{HERE, Story, node, until};
use crate::{Refusal, protocol::EndpointOnly};

/// A container that is attached, of a daemon that was killed before it was done with the join.
async fn half_done() -> Story {
    let mut story = Story::begin().await;
    story.create_network("mesh", "10.10.3.0/24").await.unwrap();
    story.create_endpoint("e1", "10.10.3.2/24", json!({})).await.unwrap();
    story.container(json!({}));
    story.join(HERE).await.unwrap();
    until(|| !story.plugin.is_waiting("e1")).await;
    let unsettle = |pages: &mut crate::book::Pages| pages.endpoints.get_mut("e1").unwrap().settled = false;
    story.plugin.book.write(unsettle).unwrap();
    story.mesh.with(|state| state.aliases.clear());
    story.plugin = Story::plugin(story.folder.path(), &story.mesh);
    story
}

fn is_settled(story: &Story) -> bool {
    story.plugin.book.read(|pages| pages.endpoints["e1"].settled)
}

#[tokio::test]
async fn a_container_that_is_attached_gets_what_is_left_and_nothing_else() {
    let story = half_done().await;
    // What nobody would attach any more, and what the daemon would refuse because it differs from what was attached.
    let refusal = Refusal { code: Code::AlreadyExists, message: "has another name".to_owned() };
    story.mesh.with(|state| {
        state.refuse = Some(refusal);
        let own = node("n1", Availability::Drain);
        state.node = own.id.to_string();
        state.view.as_mut().unwrap().nodes.insert(own.id, own);
    });
    story.plugin.clone().resume().await;
    until(|| is_settled(&story)).await;
    assert_eq!(story.mesh.with(|state| (state.attaches, state.refused)), (1, 0));
    let aliases = story.mesh.with(|state| state.aliases.get("docker:e1").cloned());
    assert_eq!(aliases, Some(vec!["front".to_owned(), "web".to_owned(), "WWW".to_owned()]));
    assert!(story.stopped.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_container_that_is_attached_runs_on_when_its_network_is_gone() {
    let story = half_done().await;
    story.mesh.with(|state| {
        let view = state.view.as_mut().unwrap();
        view.services.clear();
        view.networks.values_mut().for_each(|network| network.attachable = false);
    });
    story.plugin.clone().resume().await;
    until(|| is_settled(&story)).await;
    assert_eq!(story.mesh.with(|state| state.attaches), 1);
    assert!(story.stopped.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_join_that_was_cut_off_before_the_attach_is_done_or_the_container_stopped() {
    for (name, stops) in [("web1", false), ("taken", true)] {
        let mut story = half_done().await;
        // What is there is of the sandbox that the container had before.
        let elsewhere = Namespace::Path("/run/before".to_owned());
        story.mesh.with(|state| {
            state.attached.get_mut("docker:e1").unwrap().namespace = Some(elsewhere);
            state.attaches = 0;
        });
        story.plugin = Story::plugin(story.folder.path(), &story.mesh);
        story.rename(name);
        story.plugin.clone().resume().await;
        match stops {
            false => {
                until(|| is_settled(&story)).await;
                assert_eq!(story.mesh.with(|state| state.attaches), 1);
            }
            true => until(|| *story.stopped.lock().unwrap() == ["c1"]).await,
        }
    }
}

#[tokio::test]
async fn a_daemon_with_much_to_do_is_waited_for_for_two_minutes() {
    let story = Story::begin().await;
    story.create_network("mesh", "10.10.3.0/24").await.unwrap();
    story.create_endpoint("e1", "10.10.3.2/24", json!({})).await.unwrap();
    story.container(json!({}));
    let kept = story.plugin.book.read(|pages| pages.endpoints["e1"].clone());
    let which = EndpointOnly { network: "n1".to_owned(), endpoint: "e1".to_owned() };
    let here = Path::new(HERE);
    let wishes = story.plugin.wishes(&which, &kept, here).await.unwrap();
    let slow = Refusal { code: Code::DeadlineExceeded, message: "no answer".to_owned() };
    story.mesh.with(|state| state.refuse = Some(slow));
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    let refused = story.plugin.attach_patiently("e1", &kept, &wishes, here).await.unwrap_err();
    assert_eq!(refused.to_string(), "no answer");
    let waited = begin.elapsed().as_secs();
    assert!((120..=121).contains(&waited), "{waited} s");
    // What is no matter of the moment is not asked for again.
    let never = Refusal { code: Code::FailedPrecondition, message: "the lease is full".to_owned() };
    story.mesh.with(|state| state.refuse = Some(never));
    let begin = tokio::time::Instant::now();
    story.plugin.attach_patiently("e1", &kept, &wishes, here).await.unwrap_err();
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn what_was_made_a_moment_ago_is_waited_for() {
    let story = Story::begin().await;
    let whole = story.mesh.with(|state| state.view.clone().unwrap());
    let less = |without: fn(&mut ClusterView)| {
        let mut view = whole.clone();
        without(&mut view);
        story.mesh.with(|state| state.view = Some(view));
        let (mesh, whole) = (story.mesh.clone(), whole.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            mesh.with(|state| state.view = Some(whole));
        })
    };
    let no_networks: fn(&mut ClusterView) = |view| view.networks.clear();
    let news = less(no_networks);
    let pool = json!({"AddressSpace": "mesh", "Pool": "", "Options": {"network": "prod"}, "V6": false});
    story.ask("IpamDriver.RequestPool", pool).await.unwrap();
    news.await.unwrap();
    let news = less(no_networks);
    story.create_network("mesh", "10.10.3.0/24").await.unwrap();
    news.await.unwrap();
    for without in [
        (|view| view.services.clear()) as fn(&mut ClusterView),
        |view| view.services.values_mut().for_each(|service| service.networks.clear()),
        no_networks,
    ] {
        story.create_endpoint("e1", "10.10.3.2/24", json!({})).await.unwrap();
        story.container(json!({"mesh.service": "web"}));
        let news = less(without);
        story.join(HERE).await.unwrap();
        news.await.unwrap();
    }
}
