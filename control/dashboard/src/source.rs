//! What the page shows comes from here, and what it changes goes here.

use async_trait::async_trait;
use serde::Deserialize;
use thiserror::Error;

use crate::Model;

/// A cluster to show.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Everything as it is now. Asked at most once a second, and only while somebody looks: whoever makes rates may begin
    /// with the first question and stop some seconds after the last one.
    async fn model(&self) -> Model;

    /// Makes a change; answers with what was done, for people.
    async fn change(&self, change: Change) -> Result<String, Refusal>;
}

/// What can be changed by click.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// Opens a port on every node.
    Publish {
        /// The service's id.
        service: String,
        /// As `meshctl publish` takes it, for example `8080:80/tcp`.
        port: String,
    },
    /// Closes it.
    Unpublish {
        /// The service's id.
        service: String,
        /// As `meshctl unpublish` takes it, for example `8080/tcp`.
        port: String,
    },
    /// Sets the share of new connections that a task gets.
    Weight {
        /// The task's id.
        task: String,
        /// 1 to 100.
        weight: u32,
    },
    /// Lets a task end its connections and gives it no new ones.
    Drain {
        /// The task's id.
        task: String,
    },
    /// Says whether a node takes tasks, keeps those that it has, or drains them.
    Availability {
        /// The node's id.
        node: String,
        /// `active`, `pause` or `drain`.
        availability: String,
    },
}

/// Why a change was not made. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Refusal(pub String);
