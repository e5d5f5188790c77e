//! The nftables tables that let tasks out by the node's own addresses.

use ipnet::IpNet;

use crate::{Result, nft};

/// Makes sure that packets from `pool` leave with the node's address and that nobody outside opens a connection to an
/// address of `pool`. Only the table `<family of the pool> <table>` is looked at and written, in one transaction.
///
/// Works in the namespace of the calling thread and blocks for some milliseconds.
pub fn ensure_masquerade(table: &str, pool: IpNet) -> Result<()> {
    let pool = pool.trunc();
    let family = family_of(pool);
    let wanted = table_text(family, table, pool);
    if nft::list(&["table", family, table])?.is_some_and(|now| words(&now) == words(&wanted)) {
        return Ok(());
    }
    nft::apply(table, &made_anew(table, pool))
}

/// Makes the tables of `pools`, as [`ensure_masquerade`] does, in one transaction and without looking at what is there, which is
/// replaced: for who knows that nothing is.
pub fn make_masquerade(table: &str, pools: &[IpNet]) -> Result<()> {
    let script: String = pools.iter().map(|pool| made_anew(table, *pool)).collect();
    nft::apply(table, &script)
}

/// A table that is there is added to, so that it can be deleted whether or not it was.
fn made_anew(table: &str, pool: IpNet) -> String {
    let pool = pool.trunc();
    let family = family_of(pool);
    let wanted = table_text(family, table, pool);
    format!("table {family} {table}\ndelete table {family} {table}\n{wanted}")
}

/// Removes the tables of both families; one that is not there is fine.
pub fn remove_masquerade(table: &str) -> Result<()> {
    ["ip", "ip6"].into_iter().try_for_each(|family| remove_table(family, table))
}

/// Removes the table of the pool's family alone; one that is not there is fine.
pub fn remove_masquerade_of(table: &str, pool: IpNet) -> Result<()> {
    remove_table(family_of(pool), table)
}

fn remove_table(family: &str, table: &str) -> Result<()> {
    if nft::list(&["table", family, table])?.is_some() {
        nft::apply(table, &format!("table {family} {table}\ndelete table {family} {table}\n"))?;
    }
    Ok(())
}

/// nftables' word for the family of a pool, also where matches begin.
fn family_of(pool: IpNet) -> &'static str {
    match pool {
        IpNet::V4(_) => "ip",
        IpNet::V6(_) => "ip6",
    }
}

/// The table as `nft list table` prints it.
fn table_text(family: &str, table: &str, pool: IpNet) -> String {
    format!(
        "table {family} {table} {{\n\
         chain postrouting {{\n\
         type nat hook postrouting priority srcnat; policy accept;\n\
         {family} saddr {pool} masquerade\n\
         }}\n\
         chain forward {{\n\
         type filter hook forward priority filter; policy accept;\n\
         {family} daddr {pool} ct state != {{ established, related }} drop\n\
         }}\n\
         }}\n"
    )
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}
