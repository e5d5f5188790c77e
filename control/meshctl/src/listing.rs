//! What all lists have in common: `--quiet` and `--no-trunc`.

use anyhow::Result;
use serde::Serialize;

use crate::{
    context::Context,
    filter::Filtered,
    output::{Table, short},
};

/// Options of every list.
#[derive(Debug, clap::Args)]
pub struct Listing {
    /// Print only ids
    #[arg(long, short)]
    quiet: bool,
    /// Print whole ids, and lines as long as they are
    #[arg(long)]
    no_trunc: bool,
}

impl Listing {
    /// Prints the list: for people the table that `table` makes of it, given how ids are shown.
    pub fn show<T: Serialize + Filtered>(
        &self,
        context: &Context,
        list: &Vec<T>,
        table: impl FnOnce(&[T], fn(&str) -> String) -> Table,
    ) -> Result<()> {
        let id: fn(&str) -> String = if self.no_trunc { str::to_owned } else { short };
        context.show(list, |list| {
            if self.quiet {
                return list.iter().map(|one| id(one.id()) + "\n").collect();
            }
            let table = table(list, id);
            if self.no_trunc { table.render_within(None) } else { table.render() }
        })
    }
}
