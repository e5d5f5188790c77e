//! Why packets are dropped, and which way the others went.

macro_rules! indexed {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every value, in the order of its index.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many there are: the length of the per-CPU array.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// Its name in lists and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

indexed! {
    /// Index into `DROPS`, a per-CPU array of `u64`.
    DropReason {
        /// Shorter than its headers say, or headers that contradict each other.
        Malformed = "malformed",
        /// A VXLAN packet from an address that is no peer.
        UnknownSender = "unknown-sender",
        /// A VNI that this node has no network for.
        UnknownVni = "unknown-vni",
        /// An inner source address that is no endpoint of the sending node.
        ForgedSource = "forged-source",
        /// A task sent from an address or Ethernet address that is not its own.
        SpoofedSource = "spoofed-source",
        /// No endpoint has the destination address.
        NoEndpoint = "no-endpoint",
        /// A steered packet for an endpoint that is gone.
        StaleEndpoint = "stale-endpoint",
        /// A service without a running task.
        NoBackend = "no-backend",
        /// The network is internal and the destination outside.
        Internal = "internal-network",
        /// Larger than the underlay carries.
        TooBig = "too-big",
        /// A protocol that the data path does not carry.
        Unsupported = "unsupported-protocol",
        /// A fragment whose first part has not been seen.
        Fragment = "fragment",
        /// A return packet that answers nothing this node sent.
        UnexpectedReturn = "unexpected-return",
        /// A kernel helper refused: out of memory, or a packet in a state that it does not take.
        HelperFailed = "helper-failed",
        /// A conntrack entry could not be written.
        FlowTableFull = "flow-table-full",
        /// No free source port was found for a second flow with the same tuple.
        NoFreePort = "no-free-port",
    }
}

indexed! {
    /// Index into `COUNTERS`, a per-CPU array of `u64` packets.
    Counter {
        /// Sent by the fast path.
        FastSent = "fast-sent",
        /// Received by the fast path.
        FastReceived = "fast-received",
        /// Sent through the VXLAN device.
        GeneralSent = "general-sent",
        /// Received from the VXLAN device.
        GeneralReceived = "general-received",
        /// From task to task on this node.
        Local = "local",
        /// Out to the world, through the host's stack.
        Egress = "egress",
        /// To a published port, from outside or a host socket.
        Published = "published",
        /// To a VIP.
        Vip = "vip",
        /// Replies translated back.
        Reply = "reply",
        /// ARP requests answered.
        ArpAnswered = "arp-answered",
        /// New flows given a backend.
        NewFlow = "new-flow",
        /// Neighbour solicitations answered.
        NeighbourAnswered = "neighbour-answered",
        /// Senders told that a packet is larger than the underlay carries.
        TooBigAnswered = "too-big-answered",
        /// ICMP errors that followed the flow they are about.
        FlowError = "flow-error",
        /// TCP connections reset because their task is gone.
        Reset = "reset",
        /// Forwarded by the XDP program.
        Xdp = "xdp",
        /// Sent back to the node that chose, because the task is gone.
        Refused = "refused",
        /// Given another task after a refusal.
        ChosenAgain = "chosen-again",
    }
}
