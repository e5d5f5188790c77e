//! `meshctl completion`.

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{complete, context::Context, output};

/// Print what makes a shell complete verbs, options and the names of what there is
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl completion bash > /etc/bash_completion.d/meshctl
  meshctl completion zsh > /usr/local/share/zsh/site-functions/_meshctl
  meshctl completion fish > ~/.config/fish/completions/meshctl.fish

The shell then asks meshctl, which asks the daemon for the names of networks, services, nodes and tasks.")]
pub struct Args {
    /// Shell
    #[arg(value_enum)]
    shell: Known,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

/// Needs no daemon.
pub fn run(args: &Args, _context: &Context) -> Result<()> {
    let shell = match args.shell {
        Known::Bash => "bash",
        Known::Zsh => "zsh",
        Known::Fish => "fish",
    };
    let script =
        complete::script(shell).context("this shell is not known")?.context("cannot write the script")?;
    output::print(&String::from_utf8_lossy(&script))
}
