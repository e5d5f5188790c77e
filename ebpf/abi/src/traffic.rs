//! What is counted of one endpoint of this node, and of one service.

/// Value of `ENDPOINT_TRAFFIC` (index: [`crate::LocalEndpoint::id`]) and of `SERVICE_TRAFFIC` (index:
/// [`crate::ServiceValue::counter`]), per CPU. At index 0 is what belongs to nobody; no one reads it.
///
/// Packets are IP packets; one that is still to be cut into segments counts as so many. Bytes are those of the frames, with
/// their Ethernet headers, as a task sends and gets them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficValue {
    /// Towards the task, or from a service's clients.
    pub packets_in: u64,
    /// Bytes of these.
    pub bytes_in: u64,
    /// From the task, or to a service's clients.
    pub packets_out: u64,
    /// Bytes of these.
    pub bytes_out: u64,
    /// Flows that began towards it, by a VIP or a published port.
    pub new_flows: u64,
    /// Packets towards it that were dropped when it was known already whose they are; of a service, those for which there was
    /// no task.
    pub drops_in: u64,
    /// Packets from the task that were dropped.
    pub drops_out: u64,
    /// Zero.
    pub reserved: u64,
}
