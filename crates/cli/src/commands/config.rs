//! `mainstay config`: is the configuration right, what does it come to, what may stand in it.

use crate::{context::Context, exit::Exit, render::count};
use mainstay_domain::Result;
use mainstay_operations::config;
use serde_json::json;

/// Check or show the configuration
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Read the configuration and say what is wrong with it
    Check,
    /// Show the configuration with every default written out (it names secrets and holds none)
    Show,
    /// Print the configuration's JSON schema, for editors
    Schema,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    match args.action {
        Action::Check => check(context),
        Action::Show => show(context),
        Action::Schema => {
            context.output.document(format_args!("{:#}", config::schema()));
            Ok(Exit::Done)
        }
    }
}

fn check(context: &Context) -> Result<Exit> {
    let config = context.config()?;
    let sources: usize = config.apps.values().map(|app| app.sources.len()).sum();
    context.output.line(format_args!(
        "{} is right: {}, {}, {}, {}",
        config.path().display(),
        count(config.apps.len() as u64, "application"),
        count(sources as u64, "source"),
        count(config.repositories.len() as u64, "repository"),
        count(config.stores.len() as u64, "store"),
    ));
    context.output.json("config", &json!({ "path": config.path(), "valid": true }));
    Ok(Exit::Done)
}

fn show(context: &Context) -> Result<Exit> {
    let config = context.config()?;
    context.output.line(config.to_yaml().trim_end());
    context.output.json("config", &json!({ "path": config.path(), "config": config }));
    Ok(Exit::Done)
}
