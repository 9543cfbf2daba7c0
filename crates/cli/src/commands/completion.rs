//! `mainstay completion`: a script that completes commands and options in a shell.

use crate::{args::Cli, context::Context, exit::Exit};
use clap::CommandFactory;
use clap_complete::{Shell, generate};
use mainstay_domain::Result;

/// Print a script that completes commands and options in your shell
///
/// For bash: mainstay completion bash > /etc/bash_completion.d/mainstay
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell to write it for
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "mainstay", &mut script);
    context.output.document(String::from_utf8_lossy(&script).trim_end());
    Ok(Exit::Done)
}
