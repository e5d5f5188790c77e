//! A dashboard over a made-up cluster, and a real browser that looks at it.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test binary and the example use a part of it"
)]

pub mod browser;
pub mod client;
pub mod sample;

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use mesh_ca::{DEFAULT_VALIDITY, Identity, IdentityCell, RootCa};
use mesh_dashboard::{Dashboard, Limits, Options};
use mesh_types::{ClusterId, NodeId, Role};
use tokio::runtime::Runtime;

pub use self::sample::Sample;

/// A served dashboard.
pub struct Served {
    pub runtime: Runtime,
    pub dashboard: Dashboard,
    pub sample: Arc<Sample>,
}

impl Served {
    pub fn new(sample: Sample, limits: Limits) -> Self {
        let runtime = Runtime::new().unwrap();
        let sample = Arc::new(sample);
        let tls = mesh_ca::page_config(identity()).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = Options { listen, tls, name: "test".to_owned(), limits };
        let dashboard = runtime.block_on(Dashboard::start(options, sample.clone())).unwrap();
        Self { runtime, dashboard, sample }
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}/", self.dashboard.addr().port())
    }

    /// Where a new session begins.
    pub fn login(&self, write: bool) -> String {
        format!("{}#login={}", self.url(), self.dashboard.login(write))
    }
}

fn identity() -> Arc<IdentityCell> {
    let now = SystemTime::now();
    let ca = RootCa::generate(ClusterId::from_u128(1), now).unwrap();
    let (key, csr) = Identity::request().unwrap();
    let chain = ca.issue(&csr, NodeId::from_u128(1), Role::Manager, now, DEFAULT_VALIDITY).unwrap();
    IdentityCell::new(Identity::new(key, chain).unwrap()).unwrap()
}
