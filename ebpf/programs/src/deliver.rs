//! The last step: into a task, or towards the node that has it.

use mesh_abi::{
    Address, BackendValue, Counter, DropReason, EndpointValue, GATEWAY_MAC, INGRESS_VNI, LocalEndpoint,
    NodeConfig, ReturnPath, ReverseValue, ServiceValue, Steering, SteeringKind,
};

use crate::{
    encap::{self, Envelope},
    header::Macs,
    key,
    maps::{ENDPOINTS, LOCAL_BY_ID, NETWORKS, SERVICES},
    parse::{Packet, Tuple},
    reverse,
    skb::Skb,
    translate::translate,
    verdict::{Outcome, Verdict, count},
};

/// Where a flow came from, which its replies must go back to.
pub struct Origin {
    /// The way back.
    pub path: ReturnPath,
    /// The node that the client spoke to.
    pub vtep: Address,
    /// The port that the task listens on, if not the one that the client spoke to.
    pub target_port: [u8; 2],
}

/// Into the task behind a host-side interface of this node.
#[inline(always)]
pub fn into_task(skb: Skb, ifindex: u32, to: &[u8; 6], from: &[u8; 6]) -> Outcome {
    skb.store(0, &Macs { to: *to, from: *from })?;
    skb.for_this_host()?;
    Ok(Verdict::Task(ifindex))
}

/// To an endpoint of a network, wherever it is.
#[inline(always)]
pub fn to_endpoint(
    skb: Skb,
    node: &NodeConfig,
    packet: &Packet,
    (vni, endpoint): ([u8; 4], &EndpointValue),
    from: &[u8; 6],
) -> Outcome {
    if endpoint.ifindex != 0 {
        count(Counter::Local);
        into_task(skb, endpoint.ifindex, &endpoint.mac, from)
    } else {
        let envelope = Envelope { vtep: endpoint.vtep, vni, macs: Macs { to: endpoint.mac, from: *from } };
        encap::send(skb, node, packet, &envelope)
    }
}

/// To the backend that was chosen: translated when it is here, untouched and steered when it is not.
#[inline(always)]
pub fn to_backend(
    skb: Skb,
    node: &NodeConfig,
    packet: &mut Packet,
    backend: &BackendValue,
    (kind, origin): (SteeringKind, &Origin),
) -> Outcome {
    if backend.ifindex != 0 {
        let local = local(backend.endpoint, backend.generation)?;
        return land(skb, packet, local, origin);
    }
    let steering = Steering { endpoint: backend.endpoint, generation: backend.generation, kind };
    let envelope = Envelope { vtep: backend.vtep, vni: INGRESS_VNI, macs: Macs::of(steering) };
    encap::send(skb, node, packet, &envelope)
}

/// The endpoint of this node with that id, if it is still the one that was meant.
#[inline(always)]
pub fn local(id: u32, generation: u16) -> Result<&'static LocalEndpoint, DropReason> {
    // SAFETY: see `endpoint`.
    match unsafe { LOCAL_BY_ID.get(id) } {
        Some(local) if local.generation == generation => Ok(local),
        _ => Err(DropReason::StaleEndpoint),
    }
}

/// Translates a packet to a VIP or published port for a task of this node, and notes how replies go back.
#[inline(always)]
pub fn land(skb: Skb, packet: &mut Packet, local: &LocalEndpoint, origin: &Origin) -> Outcome {
    let client = packet.tuple;
    let address = local.address4;
    let mut new = Tuple { destination: address, ..client };
    if client.source == address && matches!(origin.path, ReturnPath::Network) {
        // The task was given itself: its own address as the source would never leave its stack.
        new.source = gateway(local.vni)?;
    }
    if origin.target_port != [0; 2] {
        new.destination_port = origin.target_port;
    }
    let mut reply = key::reply(local, new.destination_port, (new.source, new.source_port), packet.protocol);
    let mut value = ReverseValue {
        last_seen: 0,
        source: key::mapped(client.destination),
        destination: key::mapped(client.source),
        vtep: origin.vtep,
        source_port: client.destination_port,
        destination_port: client.source_port,
        ifindex: 0,
        path: origin.path as u8,
        state: 0,
        reserved: [0; 6],
    };
    new.source_port = reverse::remember(&mut reply, &mut value, packet.flags)?;
    translate(skb, packet, &new)?;
    into_task(skb, local.ifindex, &local.mac, &GATEWAY_MAC)
}

/// The endpoint of a network that has an address.
#[inline(always)]
pub fn endpoint(vni: [u8; 4], address: [u8; 4]) -> Option<&'static EndpointValue> {
    // SAFETY: values of a map without preallocation stay as they were until the program ends, here and below.
    unsafe { ENDPOINTS.get(key::endpoint(vni, address)) }
}

/// Whether an address is a VIP of a network.
#[inline(always)]
pub fn vip(vni: [u8; 4], address: [u8; 4]) -> Option<&'static ServiceValue> {
    // SAFETY: see `endpoint`.
    unsafe { SERVICES.get(key::vip(vni, address)) }
}

/// The service that publishes a port.
#[inline(always)]
pub fn published(port: [u8; 2], protocol: u8) -> Option<&'static ServiceValue> {
    // SAFETY: see `endpoint`.
    unsafe { SERVICES.get(key::published(port, protocol)) }
}

/// The gateway's address of a network.
#[inline(always)]
fn gateway(vni: [u8; 4]) -> Result<[u8; 4], DropReason> {
    // SAFETY: see `endpoint`.
    let network = unsafe { NETWORKS.get(key::network(vni)) }.ok_or(DropReason::UnknownVni)?;
    Ok(network.gateway4)
}
