//! The question whether a node's data path works: a datagram to the VXLAN port that no VXLAN device sends.

/// In place of a VXLAN header: without the flag that says that the VNI is valid, which every VXLAN packet has (RFC 7348,
/// section 5). The answer is the same packet.
pub const QUESTION: [u8; 8] = *b"\0meshd?\0";
/// Bytes of a question at least: those, and eight by which the asker knows the answer. What follows comes back too: a question
/// that may not be fragmented (DF) tells whether a packet of its size passes, both there and back.
pub const QUESTION_LEN: u32 = 16;
