//! `mainstay repair`: settles what a person has to decide about a repository.

use super::point::repositories;
use crate::{context::Context, exit::Exit};
use mainstay_domain::{Failure, Result};
use mainstay_operations::access;
use serde_json::json;

/// Settle what a person has to decide: that a store which was rolled back is to be used as it is
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this repository of the configuration
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
    /// The store was restored from an older copy of itself: go on with what it holds now
    #[arg(long)]
    accept_rollback: bool,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    if !args.accept_rollback {
        return Err(Failure::usage("nothing to repair was named").hint("Say what: --accept-rollback."));
    }
    let config = context.config()?;
    let chosen: Vec<_> = match &args.repository {
        Some(name) => vec![access::repository_named(&config, name)?],
        None => repositories(&config).collect(),
    };
    for named in &chosen {
        let name = named.name;
        let repository = access::open(&config, named, context.clock())?;
        let rolled_back = repository.was_rolled_back();
        if rolled_back {
            repository.accept_rollback()?;
            context.output.line(format_args!(
                "{name}: taken as it is now. Points made since that copy are gone; make a new backup."
            ));
        } else {
            context.output.line(format_args!("{name}: nothing was rolled back."));
        }
        context.output.json("repair", &json!({ "repository": name, "accepted_rollback": rolled_back }));
    }
    Ok(Exit::Done)
}
