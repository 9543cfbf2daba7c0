//! `mainstay demo`: a small company is backed up; a mistake is undone; all of it is destroyed, restored, and shown to be equal.
//!
//! Every step runs this same binary as a user would, and shows the command and what it prints. That what came back is equal
//! is shown twice: by Mainstay's own proof, and by fingerprints that the demo takes itself, in SQL, from Redis and from the
//! files, before the loss and after the restore. It needs a PostgreSQL server to be installed, starts a throw-away one of its
//! own (and a Redis, where one is installed), touches nothing else, and leaves nothing behind.

mod company;
mod images;
mod services;
mod shell;
mod unprivileged;
mod uploads;

use crate::{context::Context, exit::Exit, render::time};
use company::{Company, Fingerprint};
use mainstay_domain::{ByteSize, Failure, Kind, Result};
use mainstay_sources::postgres::{
    sandbox::{self, Sandbox, SandboxOptions},
    tools::{self, Purpose, Tools},
};
use services::{Cache, Settings};
use shell::Shell;
use std::{fs, path::PathBuf};

/// Show Mainstay at work: back up a small company, undo a mistake to the second, destroy everything, restore it, prove it
///
/// Needs an installed PostgreSQL server (14 or later), of which it starts a throw-away one.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder of PostgreSQL's programs, where they are not in one of the usual places
    #[arg(long, value_name = "FOLDER")]
    postgres_bin: Option<PathBuf>,
    /// Leave the demo's folder in place at the end
    #[arg(long)]
    keep: bool,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    if let Some(user) = sandbox::server_user() {
        return unprivileged::play_as(user, &args);
    }
    let begun = context.clock().now();
    let folder = tempfile::Builder::new()
        .prefix("mainstay-demo-")
        .tempdir()
        .map_err(|error| Failure::failed("no temporary folder could be made").caused_by(error))?;
    let tools =
        tools::installed(Purpose::Server, args.postgres_bin.as_deref()).into_iter().max_by_key(|t| t.major);
    let tools = tools.filter(|tools| tools.major >= 14).ok_or_else(|| {
        Failure::preflight("the demo needs a PostgreSQL server, version 14 or later")
            .hint("Install one (Debian: apt-get install postgresql; from the sources: make setup), or name its folder with --postgres-bin.")
    })?;
    let path = folder.path().canonicalize().unwrap_or(folder.path().to_owned());
    // What the archiver is to do is said later, as on a server that lives.
    let options = SandboxOptions::new(tools.clone())
        .setting("archive_mode", "on")
        .setting("full_page_writes", "on")
        .setting("wal_level", "replica");
    let company = Company {
        sandbox: Sandbox::start(&options)?,
        cache: Cache::start()?,
        uploads: path.join("uploads"),
        settings: Settings(path.join("config")),
    };
    let mut environment = vec![("DATABASE_URL", company.url())];
    environment.extend(company.cache.as_ref().map(|cache| ("REDIS_URL", cache.url())));
    let demo = Demo { shell: Shell::new(&path, environment)?, folder: path, company, tools };

    demo.play()?;

    demo.shell.say(&format!("\nDone in {}.", time::length(context.clock().now().since(begun))));
    if args.keep {
        demo.shell.say(&format!("The demo's folder is left in {}.", folder.keep().display()));
    }
    Ok(Exit::Done)
}

struct Demo {
    shell: Shell,
    folder: PathBuf,
    company: Company,
    tools: Tools,
}

impl Demo {
    /// The story, step by step.
    fn play(&self) -> Result<()> {
        self.found()?;
        self.protect()?;
        self.work_and_mistake()?;
        let before = self.evening()?;
        self.disaster_and_return(&before)?;

        self.shell.title("Proof: bring each source up by itself, compare everything with what was captured, sign the result");
        self.shell.run(&["verify", "clinic", "--level", "restore"])?;
        self.shell.run(&["status"])
    }

    fn found(&self) -> Result<()> {
        let (shell, company) = (&self.shell, &self.company);
        shell.title("A small company");
        let made = company.found()?;
        shell.say(&format!(
            "Harbour Clinic: a database ({}) of {} rows in {} tables, and {} files ({}) in {} folders,",
            company.version()?,
            made.rows,
            made.tables,
            made.files.files,
            ByteSize(made.files.bytes),
            made.files.folders
        ));
        match &company.cache {
            Some(cache) => shell.say(&format!(
                "sessions and a queue in Redis {} ({} keys), and its configuration.",
                cache.version(),
                cache.keys()?.len()
            )),
            None => shell.say("and its configuration. (Redis is not installed here: the demo does without.)"),
        }
        Ok(())
    }

    fn protect(&self) -> Result<()> {
        let (shell, company) = (&self.shell, &self.company);
        shell.title("Say what to protect, and make a repository");
        shell.run(&[
            "init",
            "--app",
            "clinic",
            "--postgres-url-env",
            "DATABASE_URL",
            "--files",
            "uploads",
            "--store",
            "store",
        ])?;
        let mut more = format!(
            "      server: {{ cluster: {{ url: \"{}\" }} }}\n      settings: {{ config: {{ files: [\"{}\"] }} }}\n",
            company.server_url(),
            company.settings.0.display()
        );
        if company.cache.is_some() {
            more.push_str("      cache: { redis: { url: { env: REDIS_URL } } }\n");
        }
        shell.say(&format!(
            "\nThree lines more in mainstay.yaml: the whole server, the configuration, Redis.\n\n{more}"
        ));
        self.add_sources(&more)?;
        shell.run(&["config", "check"])?;

        shell.title("And have the server archive its WAL");
        let archive = shell.archive_command();
        shell.say(&format!("ALTER SYSTEM SET archive_command = '{archive}';\nSELECT pg_reload_conf();"));
        company.archive_with(&archive)?;

        shell.title("The first backup");
        shell.run(&["backup", "clinic", "--label", "release=1.4.2"])
    }

    fn add_sources(&self, lines: &str) -> Result<()> {
        let path = self.folder.join("mainstay.yaml");
        let written = fs::read_to_string(&path).and_then(|text| {
            fs::write(&path, text.replacen("    policies:\n", &format!("{lines}    policies:\n"), 1))
        });
        written.map_err(|error| Failure::failed("mainstay.yaml could not be changed").caused_by(error))
    }

    fn work_and_mistake(&self) -> Result<()> {
        let (shell, company) = (&self.shell, &self.company);
        shell.title(
            "A working day: some orders are paid, a letter is written. Then somebody forgets the WHERE",
        );
        company.work()?;
        let before = company.tables()?;
        let moment = company.now()?;
        let deleted = company.mistake()?;
        shell.say(&format!(
            "{moment}  (the last moment at which all was well)\nDELETE FROM clinic.prescriptions;  -- {deleted} rows\n\
             INSERT INTO ops.incidents …;       -- and work goes on"
        ));
        company.archive_all()?;
        shell.run(&["wal", "status"])?;

        shell.title(
            "Undo it: one table as it was then, its lost rows put back beside what has happened since",
        );
        shell.run(&[
            "restore",
            "clinic",
            "--source",
            "server",
            "--table",
            "clinic.prescriptions",
            "--at",
            &moment,
            "--to-database",
            "company",
            "--merge",
            "missing",
            "--yes",
        ])?;
        let table = "clinic.prescriptions";
        if company.tables()?.get(table) != before.get(table) {
            return Err(Failure::new(Kind::Verification, format!("{table} is not what it was")));
        }
        shell.say(&format!("\nEqual: the {deleted} rows are back, and nothing that was done since is lost."));

        shell.title("Or the whole server as it was then, beside the one that lives");
        let options = SandboxOptions::new(self.tools.clone());
        let server = Sandbox::start_on(&options, &|data| {
            let to = data.to_string_lossy();
            shell
                .run(&["restore", "clinic", "--source", "server", "--at", &moment, "--to-dir", &to, "--yes"])
                .map_err(std::io::Error::other)
        })?;
        shell.say("\n(The demo starts a server on it.)");
        let (then, mut expected) = (company.tables_of(&server)?, before);
        // PostgreSQL logs sequences some values ahead: after any recovery they may have skipped a few. And what it does not
        // log is empty.
        for unlogged in ["sequences", "ops.sessions"] {
            expected.insert(unlogged.to_owned(), then.get(unlogged).cloned().unwrap_or_default());
        }
        if then != expected {
            let text = company::difference(&expected, &then);
            return Err(Failure::new(Kind::Verification, format!("the server is not what it was: {text}")));
        }
        let tables = then.keys().filter(|name| name.contains('.')).count() - 1;
        shell.say(&format!(
            "Equal: every row of {tables} tables as it was at {moment}. (ops.sessions is unlogged: PostgreSQL empties it.)"
        ));
        Ok(())
    }

    /// The evening's backup, and what everything looks like then.
    fn evening(&self) -> Result<Fingerprint> {
        self.shell.title("The evening's backup stores only what is new");
        self.company.forget_what_was_restored()?;
        let before = self.company.fingerprint()?;
        self.shell.run(&["backup", "clinic", "--policy", "nightly"])?;
        self.shell.run(&["list"])?;
        self.shell.run(&["show", "clinic"])?;
        Ok(before)
    }

    fn disaster_and_return(&self, before: &Fingerprint) -> Result<()> {
        let (shell, company) = (&self.shell, &self.company);
        shell.title("Disaster: everything is gone");
        company.destroy()?;
        let cache = company.cache.is_some();
        shell.say(&format!(
            "DROP DATABASE company;\nrm -r uploads config{}",
            if cache { "\nredis-cli FLUSHALL" } else { "" }
        ));

        shell.title("Restore: first one letter that somebody waits for, then everything");
        shell.run(&[
            "restore",
            "clinic",
            "--source",
            "files",
            "--to-dir",
            "desk",
            "--path",
            "letters/2026/04/letter-003.pdf",
        ])?;
        shell.run(&["restore", "clinic", "--source", "db", "--to-database", "company", "--yes"])?;
        shell.run(&["restore", "clinic", "--source", "files", "--to-dir", "uploads"])?;
        shell.run(&["restore", "clinic", "--source", "settings", "--to-dir", "config"])?;
        if cache {
            shell.run(&["restore", "clinic", "--source", "cache", "--to-url-env", "REDIS_URL", "--yes"])?;
        }

        shell.title("Is it the same? Fingerprints from before the loss, in SQL, from Redis and from the files, taken again");
        let after = company.fingerprint()?;
        if *before != after {
            return Err(Failure::new(Kind::Verification, before.difference(&after)));
        }
        let keys = if cache { format!(", {} keys", after.keys()) } else { String::new() };
        shell.say(&format!(
            "Equal: {} rows in {} tables, {} large objects, {} files and folders with modes, times and links{keys}.",
            after.rows(),
            after.tables(),
            after.large_objects(),
            after.files()
        ));
        Ok(())
    }
}

/// Removes a folder and all in it; what is not there needs no removing.
fn remove_folder(path: &std::path::Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::failed(format!("{} could not be removed", path.display())).caused_by(error))
        }
        _ => Ok(()),
    }
}
