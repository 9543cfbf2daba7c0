//! `mainstay recover`: a store and a key, and nothing else.

use super::{
    list, parse,
    point::{self, Chosen},
    restore::{self, How},
};
use crate::{context::Context, exit::Exit, output};
use mainstay_domain::{Failure, Kind, RepositoryId, Result};
use mainstay_keys::{
    kit,
    secret::Secret,
    source::{CommandLine, KeySpec, Place},
};
use mainstay_operations::{
    points::{self, PointInfo},
    recover,
};
use serde_json::json;
use std::{collections::BTreeSet, path::PathBuf};

/// Recover with nothing but a store and a key: no configuration, no cache, no server
///
/// Without a destination it shows the repository's fingerprint, to be compared with the recovery kit, and lists what can be
/// restored: also points that lie in the store and that its log does not name, which are restored by `--point ID`. Nothing is
/// written to the repository.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the repository is: a folder, or an address such as file:///mnt/backup
    #[arg(long, value_name = "URL")]
    store: String,
    /// The fingerprint from the recovery kit: another repository is refused
    #[arg(long, value_name = "ID", value_parser = parse::fingerprint)]
    fingerprint: Option<RepositoryId>,
    /// The recovery kit as text: stands in for what the store has lost of `format`, `trust/*` and `keys/*`
    #[arg(long, value_name = "FILE")]
    kit: Option<PathBuf>,
    #[command(flatten)]
    key: KeyArgs,
    /// Only this application
    #[arg(long)]
    app: Option<String>,
    #[command(flatten)]
    how: How,
}

/// Where the key is.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "The key")]
#[group(multiple = false)]
pub struct KeyArgs {
    /// In this environment variable [default: MAINSTAY_KEY]
    #[arg(long, value_name = "VARIABLE")]
    key_env: Option<String>,
    /// In this file
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Written by this command
    #[arg(long, value_name = "COMMAND")]
    key_command: Option<String>,
    /// A passphrase, in this environment variable
    #[arg(long, value_name = "VARIABLE")]
    passphrase_env: Option<String>,
    /// A passphrase, in this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// A passphrase, written by this command
    #[arg(long, value_name = "COMMAND")]
    passphrase_command: Option<String>,
}

impl KeyArgs {
    /// Where the key is, if it is said.
    pub fn spec(&self) -> Option<KeySpec> {
        let key = place(&self.key_env, &self.key_file, &self.key_command);
        let phrase = place(&self.passphrase_env, &self.passphrase_file, &self.passphrase_command);
        key.map(KeySpec::Key).or(phrase.map(KeySpec::Passphrase))
    }

    fn read(&self) -> Result<Secret> {
        let spec = self.spec().unwrap_or_else(|| KeySpec::Key(Place::Env("MAINSTAY_KEY".to_owned())));
        Ok(spec.read()?)
    }
}

/// The one of these that was named.
fn place(env: &Option<String>, file: &Option<PathBuf>, command: &Option<String>) -> Option<Place> {
    let env = env.clone().map(Place::Env);
    let command = command.clone().map(|text| Place::Command(CommandLine::Shell(text)));
    env.or(file.clone().map(Place::File)).or(command)
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let url = super::init::address(&args.store)?;
    let spares = args.kit.as_deref().map(point::spares).transpose()?.unwrap_or_default();
    let opened = recover::open(&url, args.key.read()?, args.fingerprint, &spares, context.clock());
    let repository = opened.map_err(|failure| match failure.kind {
        Kind::NoRepository => failure
            .hint("Is the disk mounted, and the path right? The recovery kit names the stores; `format` lies at a repository's root."),
        _ => failure,
    })?;
    point::warn_of_damage(&repository)?;
    let out = &context.output;
    out.line("Repository fingerprint:");
    kit::fingerprint(&repository.id()).lines().for_each(|line| out.line(format_args!("    {line}")));
    match args.fingerprint {
        Some(_) => out.line("It is the one that was asked for.\n"),
        None => out.line("Compare it with the recovery kit.\n"),
    }
    out.json("repository", &json!({ "repository": repository.id(), "store": repository.store().describe() }));
    let found = points::list(&repository, args.app.as_deref())?;
    // Nobody's restore may fail for want of a listing.
    let unnamed = recover::unnamed(&repository, args.app.as_deref()).unwrap_or_else(|failure| {
        output::note(format_args!("warning: what the log does not name cannot be listed: {failure}"));
        Vec::new()
    });
    if let (Some(app), true, true) = (&args.app, found.is_empty(), unnamed.is_empty()) {
        let mut all = points::list(&repository, None)?;
        all.extend(recover::unnamed(&repository, None)?);
        return Err(unknown_app(app, &all));
    }
    if !args.how.has_destination() {
        show(context, &found, &unnamed);
        return Ok(Exit::Done);
    }
    if let Some(info) = by_id(&args.how.point, &found, unnamed)? {
        return restore::restore_point(&args.how, context, None, &Chosen { repository, info });
    }
    let app = match (&args.app, found.first()) {
        (Some(app), _) => app.clone(),
        (None, Some(first)) if found.iter().all(|point| point.summary.app == first.summary.app) => {
            first.summary.app.clone()
        }
        (None, Some(_)) => match found.iter().find(|point| point.id.to_string().starts_with(&args.how.point))
        {
            Some(point) => point.summary.app.clone(),
            None => {
                return Err(Failure::usage("the repository holds several applications")
                    .hint("Say which one with --app, or name a point by the beginning of its id."));
            }
        },
        (None, None) => {
            return Err(Failure::new(
                Kind::NoRepository,
                "the repository holds no recovery point that its log names",
            )
            .hint("Without a destination, what else lies there is listed; name one of them: --point ID."));
        }
    };
    let info = points::find(&repository, &app, &args.how.point)?;
    let mut chosen = Chosen { repository, info };
    args.how.settle_latest(&mut chosen)?;
    restore::restore_point(&args.how, context, None, &chosen)
}

fn show(context: &Context, found: &[PointInfo], unnamed: &[PointInfo]) {
    match (found, unnamed) {
        ([], [_, ..]) => {}
        _ => list::show(context, found),
    }
    if !unnamed.is_empty() {
        context.output.line(
            "\nIn the store, and not named by its log (deleted and not yet collected, or the entry was lost). What is left of one is \
             restored by --point ID:\n",
        );
        list::show_as(context, unnamed, "unnamed_point");
    }
}

/// The point whose id begins with `words`, if it is one that the log does not name.
fn by_id(words: &str, found: &[PointInfo], unnamed: Vec<PointInfo>) -> Result<Option<PointInfo>> {
    let prefix = words.to_ascii_lowercase();
    let begins = |point: &PointInfo| prefix.len() >= 4 && point.id.to_string().starts_with(&prefix);
    if found.iter().any(begins) {
        return Ok(None);
    }
    let mut matching: Vec<_> = unnamed.into_iter().filter(begins).collect();
    if matching.len() > 1 {
        return Err(Failure::usage(format!("{words:?} is the beginning of several recovery points"))
            .hint("Write more of it."));
    }
    Ok(matching.pop())
}

fn unknown_app(app: &str, all: &[PointInfo]) -> Failure {
    let apps: BTreeSet<&str> = all.iter().map(|point| point.summary.app.as_str()).collect();
    let names: Vec<&str> = apps.into_iter().collect();
    Failure::new(Kind::NoRepository, format!("the repository holds no recovery point of {app}")).hint(
        match names[..] {
            [] => "It holds none of any application, in its log or beside it.".to_owned(),
            _ => format!("It holds those of: {}.", names.join(", ")),
        },
    )
}
