//! `mainstay key`: make keys, and manage who can open a repository.

use super::recover::KeyArgs;
use crate::{
    context::Context,
    exit::Exit,
    render::{confirm, table::Table, time},
};
use mainstay_domain::{Failure, Result};
use mainstay_keys::{secret::Secret, source::KeySpec};
use mainstay_operations::{access, keys};
use mainstay_repository::Repository;
use serde_json::json;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Make keys, and manage who can open a repository
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Generate(Generate),
    List(Of),
    Add(Add),
    Remove(Remove),
    Kit(PrintKit),
}

/// Print the recovery kit anew: after a key was added or removed, or where it was lost
///
/// It holds no key. Keep it away from the machine and the stores, and apart from the key.
#[derive(Debug, clap::Args)]
struct PrintKit {
    #[command(flatten)]
    of: Of,
    /// Write it to a new file, and beside it a page for printing (.html), instead of showing it
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// List who can open a repository
#[derive(Debug, clap::Args)]
struct Of {
    /// The repository, where the configuration names several
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
}

/// Let another key or passphrase open a repository: everything in it, old and new
#[derive(Debug, clap::Args)]
struct Add {
    #[command(flatten)]
    of: Of,
    /// Whose key it is, or where it is kept
    #[arg(long)]
    label: String,
    #[command(flatten)]
    key: KeyArgs,
}

/// Stop a key or passphrase from opening a repository
///
/// Who kept that key and a copy of the repository's key objects can still open what was stored until now.
#[derive(Debug, clap::Args)]
struct Remove {
    #[command(flatten)]
    of: Of,
    /// The beginning of its id, or its label
    key: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Make a new random key: 64 hexadecimal digits
///
/// Without the key nothing can be restored. Keep a copy of it somewhere else than the backups and the machine.
#[derive(Debug, clap::Args)]
struct Generate {
    /// Write it to a new file that only you can read, instead of showing it
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    match args.action {
        Action::Generate(args) => generate(args, context),
        Action::List(args) => list(args, context),
        Action::Add(args) => add(args, context),
        Action::Remove(args) => remove(args, context),
        Action::Kit(args) => kit(args, context),
    }
}

fn kit(args: PrintKit, context: &Context) -> Result<Exit> {
    let config = context.config()?;
    let named = super::point::one_repository(&config, args.of.repository.as_deref())?;
    let repository = access::open(&config, &named, context.clock())?;
    match args.output {
        None => {
            let kit = super::init::kit_of(&config, &named, &repository)?;
            context.output.line(kit.text.trim_end());
            context.output.json("kit", &json!({ "text": kit.text.as_str() }));
        }
        Some(path) => {
            let printable = super::init::write_kit(&config, &named, &repository, &path)?;
            context.output.line(format_args!(
                "The recovery kit is {} ({} for printing). Throw older ones away.",
                path.display(),
                printable.display()
            ));
            context.output.json("kit", &json!({ "path": path, "printable": printable }));
        }
    }
    Ok(Exit::Done)
}

/// The kit names who can open the repository, and holds what they open it with.
fn kit_is_stale(context: &Context) {
    context.output.line("The recovery kit is out of date. Print a new one: mainstay key kit --output FILE");
}

fn list(args: Of, context: &Context) -> Result<Exit> {
    let mut table = Table::new(&["KEY", "LABEL", "KIND", "EPOCH", "SINCE"]);
    for recipient in keys::list(&args.open(context)?)? {
        table.row([
            recipient.id.chars().take(8).collect(),
            recipient.label.clone(),
            recipient.kind.to_owned(),
            recipient.epoch.to_string(),
            time::local_short(recipient.created),
        ]);
        context.output.json("key", &recipient);
    }
    context.output.line(table.render());
    Ok(Exit::Done)
}

fn add(args: Add, context: &Context) -> Result<Exit> {
    let spec = args.key.spec().ok_or_else(|| {
        Failure::usage("it is not said which key to add")
            .hint("Add --key-env, --key-file, --passphrase-env or another.")
    })?;
    let repository = args.of.open(context)?;
    if let Some(known) = keys::add(&repository, &spec.read()?, &args.label, &*context.clock())? {
        context.output.line(format_args!(
            "It opens the repository already, as {:?} ({}). Nothing was changed.",
            known.label,
            &known.id[..8]
        ));
        context.output.json("key_known", &known);
        return Ok(Exit::Done);
    }
    context.output.line(format_args!("{:?} opens the repository now.", args.label));
    kit_is_stale(context);
    context.output.json("key_added", &json!({ "label": args.label }));
    Ok(Exit::Done)
}

fn remove(args: Remove, context: &Context) -> Result<Exit> {
    let repository = args.of.open(context)?;
    confirm::typed(context, args.yes, &format!("remove the key {}", args.key), &args.key)?;
    let removed = keys::remove(&repository, &args.key)?;
    context.output.line(format_args!("{:?} opens the repository no more.", removed.label));
    kit_is_stale(context);
    context.output.json("key_removed", &removed);
    Ok(Exit::Done)
}

impl Of {
    fn open(&self, context: &Context) -> Result<Repository> {
        let config = context.config()?;
        let named = super::point::one_repository(&config, self.repository.as_deref())?;
        access::open(&config, &named, context.clock())
    }
}

/// Where a key is, in words.
pub(super) fn place(spec: &KeySpec) -> String {
    match spec {
        KeySpec::Key(place) => format!("in {place}"),
        KeySpec::Passphrase(place) => format!("a passphrase, in {place}"),
    }
}

/// A new key, as text.
pub(super) fn new_key() -> Result<Zeroizing<String>> {
    Secret::generate().key_text().ok_or_else(|| Failure::failed("the new key has no text"))
}

fn generate(args: Generate, context: &Context) -> Result<Exit> {
    let key = new_key()?;
    match args.output {
        None => {
            context.output.line(key.as_str());
            context.output.json("key", &json!({ "key": key.as_str() }));
        }
        Some(path) => {
            super::init::write_new(&path, &format!("{}\n", key.as_str()))?;
            context
                .output
                .line(format_args!("A new key is in {}. Keep a copy of it somewhere else.", path.display()));
            context.output.json("key", &json!({ "path": path }));
        }
    }
    Ok(Exit::Done)
}
