//! Lets aya copy these types into and out of maps.

use crate::*;

macro_rules! plain_old_data {
    ($($ty:ty),* $(,)?) => {$(
        // SAFETY: repr(C), Copy, 'static, only integers and byte arrays, and no padding (tests/layout.rs).
        unsafe impl aya::Pod for $ty {}
    )*};
}

plain_old_data!(
    NodeConfig,
    PeerKey,
    PeerValue,
    HostAddressKey,
    NetworkKey,
    NetworkValue,
    EndpointKey,
    EndpointValue,
    LocalEndpoint,
    ServiceKey,
    ServiceValue,
    BackendValue,
    FlowKey,
    ChoiceValue,
    ChoiceSlot,
    ReverseValue,
    FragmentKey,
    FragmentValue,
    AffinityKey,
    AffinityValue,
    SocketKey,
    SocketValue,
    TrafficValue,
    Watch,
    EventHead,
    EventCounts,
);
