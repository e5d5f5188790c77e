//! `meshctl completion`.

use anyhow::Result;
use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::{cli::Cli, context::Context, output};

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl completion bash > /etc/bash_completion.d/meshctl
  meshctl completion zsh > /usr/local/share/zsh/site-functions/_meshctl
  meshctl completion fish > ~/.config/fish/completions/meshctl.fish")]
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
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "meshctl", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
