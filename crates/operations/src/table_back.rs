//! Taking tables back to a moment: a throw-away cluster is recovered to it, and the tables are carried from there into the
//! living database, beside what lives.
//!
//! The recovered cluster is a sandbox: private, archiving nothing, gone at the end. What leaves it is captured as any database
//! is, under one snapshot, with a digest for each row, and compared after it was put in.

use crate::{
    pitr::{Log, Resolved, masked::interruptibly},
    prove,
    restore::Opened,
    scratch::Scratch,
    scratch_folder::ScratchFolder,
};
use mainstay_domain::{Clock, Failure, Kind, Monitor, Result, point::SourceRecord};
use mainstay_sources::postgres::{
    capture,
    cluster::{
        ClusterFacts,
        restore::{self as files, Action, Recovery, Target as Moment},
    },
    compare::{self, Comparison},
    config::{Patterns, PostgresConfig, TableRule},
    facts::QualifiedName,
    mask::{self, Mask, Masked},
    restore::{self, Options, Target},
    sandbox::{Sandbox, SandboxOptions},
    secret::SecretText,
    tools::{self, Purpose},
    wire::ConnectSpec,
};
use std::{
    cell::Cell,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long the server may take to recover: replay is as long as the log is.
pub(crate) const RECOVERY: Duration = Duration::from_secs(24 * 3600);

/// A folder for the recovery, after what others that were killed have left is removed.
pub fn folder(monitor: &dyn Monitor) -> Result<ScratchFolder> {
    ScratchFolder::for_recovery(monitor)
}

/// A cluster that stands as it was at the moment asked for.
pub struct Recovered {
    sandbox: Sandbox,
    superuser: String,
    folder: PathBuf,
}

/// Recovers a throw-away cluster in `folder`. `bin_dir`: where the server's programs are.
pub fn recover(
    opened: &Opened<'_>,
    resolved: &Resolved<'_>,
    bin_dir: Option<&Path>,
    folder: &Path,
    monitor: &dyn Monitor,
) -> Result<Recovered> {
    let facts = &resolved.facts;
    let options = prove::sandbox_for(tools::find(Purpose::Server, facts.major(), bin_dir)?, facts, folder);
    let failure: Cell<Option<Failure>> = Cell::new(None);
    let fill = |data: &Path| {
        bring(opened, resolved, facts, data, monitor).map_err(|error| {
            let text = error.to_string();
            failure.set(Some(error));
            std::io::Error::other(text)
        })
    };
    monitor.step("recovery", None);
    let options = SandboxOptions { deadline: RECOVERY, ..options };
    let sandbox =
        Sandbox::start_on(&options, &fill).map_err(|error| failure.take().unwrap_or_else(|| error.into()))?;
    wait_for_the_end(&sandbox, monitor)?;
    monitor.done("recovery", "");
    Ok(Recovered { sandbox, superuser: facts.superuser.clone(), folder: folder.to_owned() })
}

fn bring(
    opened: &Opened<'_>,
    resolved: &Resolved<'_>,
    facts: &ClusterFacts,
    data: &Path,
    monitor: &dyn Monitor,
) -> Result<()> {
    let inside = |oid: u32| data.join("mainstay_tablespaces").join(oid.to_string());
    let options = files::Options {
        tablespaces: facts.tablespaces.iter().map(|space| (space.oid, inside(space.oid))).collect(),
        recovery: (resolved.target != Moment::Immediate).then(|| recovery_of(resolved)),
        sync: false,
        ..files::Options::new(data.to_owned())
    };
    crate::pitr::restore(opened, resolved, &options, Log::Brought, monitor).map(drop)
}

/// How a throw-away server gets to a moment: by the log that was brought, and then on a timeline of its own.
pub(crate) fn recovery_of(resolved: &Resolved<'_>) -> Recovery {
    Recovery {
        target: resolved.target.clone(),
        timeline: resolved.ancestry.timeline,
        restore_command: "false".to_owned(),
        action: Action::Promote,
        standby: false,
        primary: None,
        archive: false,
    }
}

/// It answers as soon as it is consistent, and is there when it is no longer in recovery.
pub(crate) fn wait_for_the_end(sandbox: &Sandbox, monitor: &dyn Monitor) -> Result<()> {
    let mut connection = sandbox.connect("template1").map_err(Failure::from)?;
    let begun = Instant::now();
    while connection.query_text("SELECT pg_is_in_recovery()")?.as_deref() != Some("f") {
        if monitor.cancelled() {
            return Err(Failure::new(Kind::Cancelled, "the recovery was stopped"));
        }
        if begun.elapsed() > RECOVERY {
            return Err(Failure::failed("the recovery does not come to its end"));
        }
        std::thread::park_timeout(Duration::from_millis(100)); // between two looks at the server
    }
    Ok(())
}

impl Recovered {
    /// Masks tables before they leave: nobody but us can look into this cluster.
    ///
    /// # Errors
    /// `Refused`: the mask names none of the tables.
    pub fn mask(
        &self,
        database: &str,
        tables: &[QualifiedName],
        mask: &Mask,
        monitor: &dyn Monitor,
    ) -> Result<Vec<Masked>> {
        let spec = ConnectSpec::socket(
            self.sandbox.socket_directory(),
            self.sandbox.port(),
            &self.superuser,
            database,
        );
        let mask = mask.reaching(&spec, tables)?.ok_or_else(|| {
            Failure::new(Kind::Refused, "the mask names none of the tables that are taken back")
                .hint("Write schema.table.column of them into the mask, or leave --mask out.")
        })?;
        monitor.step("mask", None);
        let masked = interruptibly(&spec, monitor, || mask::apply(&spec, &mask))?;
        monitor.done("mask", "");
        Ok(masked)
    }
}

impl Recovered {
    fn refuse_missing(&self, database: &str, tables: &[QualifiedName]) -> Result<()> {
        let mut connection = self.sandbox.connect(database).map_err(|error| {
            Failure::usage(format!("the database {database} was not there at that moment, or lets nobody in"))
                .hint("Name the one that the tables were in: --source-database.")
                .caused_by(Failure::from(error))
        })?;
        let rows = connection.query(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY 1, 2",
        )?;
        let there: Vec<QualifiedName> =
            rows.iter().map(|row| QualifiedName { schema: row.text(0), name: row.text(1) }).collect();
        let missing: Vec<String> =
            tables.iter().filter(|table| !there.contains(table)).map(ToString::to_string).collect();
        if missing.is_empty() {
            return Ok(());
        }
        const SHOWN: usize = 20;
        let mut named: Vec<String> = there.iter().take(SHOWN).map(ToString::to_string).collect();
        if there.len() > SHOWN {
            named.push(format!("and {} more", there.len() - SHOWN));
        }
        Err(Failure::usage(format!(
            "at that moment the database {database} had no table {}",
            missing.join(", ")
        ))
        .hint(format!("It had: {}. The moment, or the name, may be another.", named.join(", "))))
    }
}

/// Tables on their way, and where they lie meanwhile.
pub struct Taken {
    scratch: Scratch,
    record: SourceRecord,
}

impl Recovered {
    /// Takes tables of one database out.
    ///
    /// # Errors
    /// `Usage`: one of them was not there at that moment.
    pub fn take(
        &self,
        database: &str,
        tables: &[QualifiedName],
        row_key: [u8; 16],
        clock: &dyn Clock,
        monitor: &dyn Monitor,
    ) -> Result<Taken> {
        self.refuse_missing(database, tables)?;
        let scratch = Scratch::within(&self.folder)?;
        let url = format!(
            "postgres://{}@/{}?host={}&port={}",
            encoded(&self.superuser),
            encoded(database),
            encoded(&self.sandbox.socket_directory().display().to_string()),
            self.sandbox.port()
        );
        let rule = |patterns: Vec<String>, exclude: bool| TableRule {
            r#match: Patterns::Several(patterns),
            exclude: Some(exclude),
            priority: None,
            r#where: None,
            expect: None,
            sensitive: None,
        };
        let named = tables.iter().map(|table| literal(&table.to_string())).collect();
        let config = PostgresConfig {
            bin_dir: Some(self.sandbox.tools().bin_dir.clone()),
            tables: vec![rule(vec!["*.*".to_owned()], true), rule(named, false)],
            ..PostgresConfig::new(SecretText::Plain(url.into()))
        };
        let record = capture::capture(&config, &scratch, row_key, clock, monitor)?;
        Ok(Taken { scratch, record })
    }
}

impl Taken {
    pub fn plan(&self, target: &Target, options: &Options) -> Result<restore::Plan> {
        restore::plan(&self.scratch, &self.record, target, options)
    }

    /// Puts the tables in, and compares them.
    pub fn put(
        &self,
        target: &Target,
        options: &Options,
        row_key: [u8; 16],
        monitor: &dyn Monitor,
    ) -> Result<(restore::Report, Comparison)> {
        let report = restore::restore(&self.scratch, &self.record, target, options, monitor)?;
        let comparing = compare::Options {
            jobs: options.jobs,
            selection: options.selection.clone(),
            left_out: compare::LeftOut::of(options),
            ..compare::Options::new(row_key)
        };
        let spec = target.server.with_database(&target.database);
        let comparison = compare::compare(&self.scratch, &self.record, &spec, &comparing, monitor)?;
        Ok((report, comparison))
    }
}

/// A name as a pattern that means only itself.
fn literal(name: &str) -> String {
    name.chars().flat_map(|c| "*?[]{}\\!".contains(c).then_some('\\').into_iter().chain([c])).collect()
}

/// A text as part of an address.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
