//! `mainstay init`: a configuration if there is none, a repository, and its recovery kit.

mod draft;

use super::point::one_repository;
use crate::{context::Context, exit::Exit, output};
use draft::{Draft, Key};
use mainstay_domain::{Failure, Result};
use mainstay_operations::{
    access::{self, Named},
    config::{Config, find},
    init, kit,
};
use mainstay_repository::Repository;
use serde_json::json;
use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Make a new repository, and a configuration if there is none
///
/// Where there is a configuration, its repository is made. Where there is none, one is written from the options below, or
/// from your answers. A recovery kit is written beside the configuration: keep it, and the key, somewhere else.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which repository of the configuration to make, where it names several
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
    /// Where to write the recovery kit [default: beside the configuration]
    #[arg(long, value_name = "FILE")]
    kit: Option<PathBuf>,
    #[command(flatten)]
    new: New,
}

/// For a new configuration.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "For a new configuration")]
pub struct New {
    /// The application's name [default: the folder's name]
    #[arg(long)]
    app: Option<String>,
    /// The environment variable that holds the database's address
    #[arg(long, value_name = "VARIABLE")]
    postgres_url_env: Option<String>,
    /// A folder to protect; may be repeated
    #[arg(long, value_name = "FOLDER")]
    files: Vec<PathBuf>,
    /// Where to keep the repository: a folder, or an address such as file:///var/lib/mainstay
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The environment variable that holds the key
    #[arg(long, value_name = "VARIABLE", conflicts_with = "key_file")]
    key_env: Option<String>,
    /// The file that holds the key; a new key is made if there is no such file [default: mainstay.key]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl New {
    fn is_given(&self) -> bool {
        self.store.is_some() || self.postgres_url_env.is_some() || !self.files.is_empty()
    }
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let path = match (context.named_config(), find(None)) {
        (Some(path), _) => path.clone(),
        (None, Ok(path)) => path,
        (None, Err(_)) => PathBuf::from("mainstay.yaml"),
    };
    if path.exists() {
        if args.new.is_given() {
            let message = format!("{} is there already, and is not overwritten", path.display());
            return Err(Failure::usage(message)
                .hint("Leave out the options for a new configuration, or name another file with --config."));
        }
    } else {
        write_config(context, &path, &args.new)?;
    }
    let config = Config::load(&path)?;
    let named = one_repository(&config, args.repository.as_deref())?;
    make(context, &config, &named, args.kit)
}

fn make(context: &Context, config: &Config, named: &Named<'_>, kit_path: Option<PathBuf>) -> Result<Exit> {
    let kit_path = kit_path
        .unwrap_or_else(|| config.path().with_file_name(format!("mainstay-{}-recovery-kit.txt", named.name)));
    if kit_path.exists() {
        return Err(Failure::usage(format!("{} is there already", kit_path.display())).hint(
            "It may be the kit of another repository; move it away, or name another file with --kit.",
        ));
    }
    let made = init::init(config, named.name, context.clock())?;
    let repository = access::open(config, named, context.clock())?;
    let key_place = super::key::place(&named.config.key);
    let printable = write_kit(config, named, &repository, &kit_path)?;

    let out = &context.output;
    out.line(format_args!("Repository {} is made in {}.", made.repository.short(), made.store));
    out.line(format_args!(
        "Its recovery kit is {} ({} for printing).",
        kit_path.display(),
        printable.display()
    ));
    out.line(format_args!(
        "\nThe key is {}. Without it nothing can ever be restored: keep a copy\n\
         of it, and the kit, somewhere else than this machine and its backups, and apart from each other.\n",
        key_place
    ));
    if let Some(app) = config.apps.keys().next() {
        out.line(format_args!("Next: mainstay backup {app}"));
    }
    out.json("init", &json!({ "repository": made.repository, "store": made.store, "kit": kit_path, "config": config.path() }));
    Ok(Exit::Done)
}

/// The recovery kit of a repository.
pub(super) fn kit_of(config: &Config, named: &Named<'_>, repository: &Repository) -> Result<kit::Printed> {
    let urls: Vec<_> =
        named.config.stores.iter().filter_map(|name| Some(config.stores.get(name)?.url.clone())).collect();
    kit::print(repository, named.name, &urls)
}

/// Writes it to a new file, and the page for printing beside it, whose path is returned.
pub(super) fn write_kit(
    config: &Config,
    named: &Named<'_>,
    repository: &Repository,
    path: &Path,
) -> Result<PathBuf> {
    let kit = kit_of(config, named, repository)?;
    let printable = path.with_extension("html");
    write_new(path, &kit.text)?;
    write_new(&printable, &kit.html)?;
    Ok(printable)
}

/// The address of a store that is written as an address or as a folder.
pub fn address(store: &str) -> Result<String> {
    let folder =
        std::env::current_dir().map_err(|e| Failure::failed("the current folder is gone").caused_by(e))?;
    Ok(draft::address(store, &folder))
}

/// Writes a configuration, and its key where that is a new file.
fn write_config(context: &Context, path: &Path, new: &New) -> Result<()> {
    let folder =
        std::env::current_dir().map_err(|e| Failure::failed("the current folder is gone").caused_by(e))?;
    let draft = if new.is_given() {
        Draft::from_options(new, &folder)?
    } else if context.interactive() {
        Draft::ask(&folder)?
    } else {
        return Err(Failure::usage("there is no configuration yet, and nothing to write one from")
            .hint("Say what to protect and where to: mainstay init --store /var/lib/mainstay --files /srv/app/uploads."));
    };
    let text = draft.to_yaml();
    // Says what is wrong before anything is written: a new key that opens nothing would only mislead.
    draft.check()?;
    let config = Config::parse(&text, path)?;
    for name in config.repositories.keys() {
        init::check(&config, name)?;
    }
    if let Some(variable) = draft.database.as_ref().filter(|name| std::env::var_os(name).is_none()) {
        output::note(format_args!("{variable} is not set here: a backup needs it."));
    }
    if let Key::File(key) = &draft.key
        && !key.exists()
    {
        write_new(key, &format!("{}\n", super::key::new_key()?.as_str()))?;
        output::note(format_args!("A new key is in {}.", key.display()));
    }
    write_new(path, &text)?;
    output::note(format_args!("The configuration is {}.", path.display()));
    Ok(())
}

/// Writes a file that must not be there yet, for its owner alone.
pub(super) fn write_new(path: &Path, text: &str) -> Result<()> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| {
        let exists = error.kind() == ErrorKind::AlreadyExists;
        let failure = Failure::failed(format!("{} could not be written", path.display())).caused_by(error);
        if exists { failure.hint("Nothing is overwritten; name another file.") } else { failure }
    })
}
