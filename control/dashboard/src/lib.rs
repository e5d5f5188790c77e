//! The managers' page: what a cluster is and does, as lists, as a map and with live rates, in a browser.
//!
//! [`Dashboard::start`] serves it over TLS. It knows nothing of managers: whoever starts it gives a [`Source`], which is asked for a
//! [`Model`] at most once a second and only while somebody looks. Filters, orders and windows of lists are worked out here
//! (`board`), so that ten thousand tasks cost the browser what a screenful does. Everything that the page needs is in the
//! binary; nothing is fetched from elsewhere.
//!
//! Who may look is decided by [`Dashboard::login`]: a token for one use within a short time, which the page changes into a session
//! (`session`). Why it is so: ADR 18.

#![forbid(unsafe_code)]

mod answer;
mod assets;
mod board;
mod guesses;
mod hub;
mod map;
mod model;
mod routes;
mod rows;
mod server;
mod session;
mod source;
mod views;

pub use model::{
    Cluster, Drops, End, Event, Model, Network, Node, Port, Problem, Rates, Service, Severity, Talk, Task,
};
pub use server::{Dashboard, DashboardError, Options};
pub use session::Limits;
pub use source::{Change, Refusal, Source};
