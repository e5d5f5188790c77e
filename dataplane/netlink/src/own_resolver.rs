//! A task's own name server before one that a rule leads 127.0.0.11 to, such as Docker's.
//!
//! Docker translates what goes to port 53 of 127.0.0.11 in a container to a socket of its own on that address. Connections
//! that conntrack does not see are not translated: they reach whoever listens on the port itself, our name server.

use crate::{NetNs, Result, nft};

/// Sockets with this mark (`SO_MARK`) reach the other name server behind our own.
pub const BEHIND_MARK: u32 = 0x6d73_6864;

const TABLE: &str = "mesh-resolver";

/// Lets port 53 of 127.0.0.11 in `ns` be our own name server's, whatever rules say. Again: changes nothing.
///
/// Blocks for some milliseconds.
pub fn prefer_own_resolver(ns: &NetNs) -> Result<()> {
    let ports = |side: &str, port: &str| {
        let line = |protocol: &str| format!("ip {side} 127.0.0.11 {protocol} {port} 53 notrack\n");
        format!("{}{}", line("udp"), line("tcp"))
    };
    let chain = format!(
        "chain output {{\n\
         type filter hook output priority raw; policy accept;\n\
         meta mark {BEHIND_MARK} accept\n\
         {}{}}}\n",
        ports("daddr", "dport"),
        ports("saddr", "sport"),
    );
    let script = format!("table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n{chain}}}\n");
    ns.run(|| nft::apply(TABLE, &script))?
}

/// Takes that back; one that is not there is fine.
pub fn forget_own_resolver(ns: &NetNs) -> Result<()> {
    ns.run(|| match nft::list(&["table", "ip", TABLE])? {
        Some(_) => nft::apply(TABLE, &format!("delete table ip {TABLE}\n")),
        None => Ok(()),
    })?
}
