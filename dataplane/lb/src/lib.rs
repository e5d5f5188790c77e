//! The data path seen from user space: Maglev tables, the eBPF programs' loader and their maps.
//!
//! An agent says what should be ([`Desired`]); [`DataPath`] finds the difference to what the kernel's maps hold and
//! writes it in an order in which no packet meets half an update. The only crate that names aya.

mod ageing;
mod attach;
mod choices;
mod clsact;
mod datapath;
mod desired;
mod draft;
mod encode;
mod error;
mod events;
mod features;
mod flow_list;
mod flows;
mod held;
mod hooks;
mod layout1;
pub mod maglev;
mod maps;
mod object;
mod pins;
mod plan;
mod programs;
mod records;
mod regions;
mod sizes;
mod stats;
mod sys;
mod table;
mod takeover;
mod traffic;
mod trial;
mod uplink;

pub use choices::Choices;
pub use datapath::{Applied, DataPath, Options};
pub use desired::{
    Backend, BackendKey, Desired, EndpointEntry, Frontend, LocalEntry, NetworkEntry, NetworkPlan,
    NodeSettings, PeerEntry, PublishedOn, ServiceEntry, ServicePlan, SourceAffinity,
};
pub use error::Error;
pub use events::{Event, EventTotals, Forgotten, WATCH_LEASE, WatchFor, Watcher, What};
pub use features::{Feature, Features, netns_cookie};
pub use flow_list::{FlowEntry, FlowReader, FlowState, FlowTask};
pub use flows::{Aged, FlowCount, FlowTimeouts, Flows};
pub use hooks::{HookKind, describe_hook};
pub use mesh_abi::{
    Counter, DropReason, EGRESS_POOL, EGRESS_POOL6, EntryPoint, GATEWAY_MAC, HOST_SERVICE_ADDRESS,
    HOST_SERVICE_ADDRESS6, Sight, VXLAN_OVERHEAD_V4, VXLAN_OVERHEAD_V6,
};
pub use object::OBJECT;
pub use sizes::{Limits, Sizes};
pub use stats::{Counts, MapUse, Stats};
pub use sys::tunneled::Outer;
pub use traffic::{ProgramStats, ServiceTraffic, Traffic, enable_stats};
pub use trial::{Entry, Fate, FlowId, Noted, Steered, Trial, steered};
pub use uplink::{NoXdp, Uplink, UplinkHook};
