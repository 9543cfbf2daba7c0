//! `mainstay restore`: a source of a recovery point, back into a directory or a database.
//!
//! The point's signature is checked before anything is read from it; where it goes is planned and can be looked at before it is
//! done; and it goes beside what lives, never over it.

use crate::{access, points::PointInfo, safety};
use mainstay_domain::{Failure, Kind, Monitor, PackId, Result, point::SourceRecord};
pub use mainstay_repository::check::Lacking;
use mainstay_repository::{Reader, Repository, check, manifest::Manifest};
use mainstay_sources::{command, configuration, files, postgres, redis};
use std::path::{Path, PathBuf};

/// A source of a recovery point, opened for reading.
pub struct Opened<'r> {
    pub reader: Reader<'r>,
    pub record: SourceRecord,
    pub point: PointInfo,
    /// The packs that the point needs.
    packs: Vec<PackId>,
}

/// Opens a source of a point: its signature holds. Whether what it needs is all there, [`Opened::lacking`] says.
pub fn open<'r>(repository: &'r Repository, point: &PointInfo, source: &str) -> Result<Opened<'r>> {
    let manifest = repository.manifest(&point.id)?;
    let record = record_of(&manifest, point, source)?.clone();
    let reader = repository.reader_for(&manifest)?;
    Ok(Opened { reader, record, point: point.clone(), packs: manifest.reach.packs })
}

/// The record of a source, or an error that lists those there are.
pub fn record_of<'m>(manifest: &'m Manifest, point: &PointInfo, source: &str) -> Result<&'m SourceRecord> {
    let sources = &manifest.point.sources;
    sources.iter().find(|record| record.name == source).ok_or_else(|| {
        let known: Vec<_> = sources.iter().map(|record| record.name.as_str()).collect();
        Failure::new(
            Kind::NoRepository,
            format!("recovery point {} has no source named {source:?}", point.id.short()),
        )
        .hint(format!("It has: {}.", known.join(", ")))
    })
}

/// The only source of a kind, when the user named none.
pub fn only_source(point: &PointInfo, kind: &str) -> Result<String> {
    let of_kind: Vec<_> =
        point.summary.sources.iter().filter(|s| s.kind == kind).map(|s| s.name.clone()).collect();
    match of_kind.as_slice() {
        [name] => Ok(name.clone()),
        [] => {
            Err(Failure::usage(format!("recovery point {} has no source of kind {kind}", point.id.short()))
                .hint("`mainstay show POINT` lists its sources."))
        }
        several => Err(Failure::usage(format!(
            "recovery point {} has several sources of kind {kind}",
            point.id.short()
        ))
        .hint(format!("Say which with `--source`: {}.", several.join(", ")))),
    }
}

impl Opened<'_> {
    /// What it is, for whoever finds what was made of it.
    pub fn in_words(&self) -> String {
        let (app, source) = (&self.point.summary.app, &self.record.name);
        format!("{source} of {app}, point {}", self.point.id.short())
    }

    /// The streams that would not come back whole. `look`: every pack is looked for in the store, which takes a request for each;
    /// without, only those packs count that are known to be lost. What is in the packs is not read: that is `verify`'s.
    ///
    /// What lacks something is restored all the same, and names what did not come: it may be all that there is.
    pub fn lacking(&self, look: bool, monitor: &dyn Monitor) -> Result<Vec<Lacking>> {
        Ok(check::lacking(&self.reader, &self.packs, &self.record, look, access::threads(), monitor)?)
    }

    fn expect_kind(&self, kind: &str) -> Result<()> {
        if self.record.kind == kind && self.record.streams.is_empty() {
            let (short, name) = (self.point.id.short(), &self.record.name);
            return Err(Failure::new(
                Kind::NoRepository,
                format!("recovery point {short} holds nothing of source {name}: it could not be captured then"),
            )
            .hint("Take another point (`--point latest-complete`); `mainstay show POINT` says what went wrong with this one."));
        }
        if self.record.kind == kind {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "source {} is of kind {}, not {kind}",
            self.record.name, self.record.kind
        )))
    }

    /// A configuration's files are files.
    fn expect_files(&self) -> Result<()> {
        if self.record.kind == configuration::KIND { Ok(()) } else { self.expect_kind(files::KIND) }
    }

    pub fn plan_files(
        &self,
        options: &files::RestoreOptions,
        monitor: &dyn Monitor,
    ) -> Result<files::RestorePlan> {
        self.expect_files()?;
        files::plan_restore(&self.reader, &self.record, options, monitor)
    }

    pub fn restore_files(
        &self,
        options: &files::RestoreOptions,
        monitor: &dyn Monitor,
    ) -> Result<files::RestoreReport> {
        self.expect_files()?;
        let all = options.paths.is_empty() && !options.deleted;
        monitor.step("files", all.then_some(self.record.bytes));
        let mut options = options.clone();
        if all && self.point.is_safety_copy() && safety::is_stopped(&self.record.name) {
            // Nothing half restored can be started.
            options.last = Some(postgres::cluster::CONTROL_FILE.to_owned());
        }
        let report = files::restore(&self.reader, &self.record, &options, monitor)?;
        monitor.done("files", "");
        Ok(report)
    }

    /// Restores a base backup by itself: to its own end.
    pub fn restore_cluster(
        &self,
        options: &postgres::cluster::restore::Options,
        monitor: &dyn Monitor,
    ) -> Result<postgres::cluster::restore::Report> {
        self.expect_kind("cluster")?;
        postgres::cluster::restore::restore(
            &self.reader,
            &self.record,
            options,
            &mut |_| Ok(Vec::new()),
            monitor,
        )
    }

    /// Which files a configuration's tables become.
    pub fn plan_tables(&self, destination: &Path) -> Result<Vec<(String, PathBuf)>> {
        self.expect_kind(configuration::KIND)?;
        configuration::plan_tables(&self.record, destination)
    }

    /// Writes a configuration's tables; returns how many bytes.
    pub fn restore_tables(&self, destination: &Path) -> Result<u64> {
        self.expect_kind(configuration::KIND)?;
        configuration::restore_tables(&self.reader, &self.record, destination)
    }

    /// Which captured tables of a configuration go into which living ones.
    pub fn plan_import(
        &self,
        wanted: &[String],
        schema: Option<&str>,
        name: Option<&str>,
    ) -> Result<Vec<configuration::Import>> {
        self.expect_kind(configuration::KIND)?;
        configuration::plan_import(&self.record, wanted, schema, name)
    }

    /// Puts the rows of captured tables back, all or none.
    pub fn import(
        &self,
        spec: &postgres::wire::ConnectSpec,
        plan: &[configuration::Import],
        how: Option<postgres::merge::How>,
    ) -> Result<Vec<postgres::merge::Merged>> {
        self.expect_kind(configuration::KIND)?;
        configuration::import(&self.reader, &self.record, spec, plan, how)
    }

    /// The file that a command's output becomes.
    pub fn plan_output(&self, destination: &Path) -> Result<PathBuf> {
        self.expect_kind(command::KIND)?;
        command::plan(&self.record, destination)
    }

    /// Writes a command's output into a file; returns its size.
    pub fn restore_output(&self, destination: &Path) -> Result<u64> {
        self.expect_kind(command::KIND)?;
        command::to_directory(&self.reader, &self.record, destination).map(|(_, bytes)| bytes)
    }

    /// Feeds a command's output to another command; returns its size.
    pub fn feed_output(&self, to: &str) -> Result<u64> {
        self.expect_kind(command::KIND)?;
        command::to_command(&self.reader, &self.record, to)
    }

    pub fn plan_redis(&self, options: &redis::restore::Options) -> Result<redis::restore::Plan> {
        self.expect_kind(redis::KIND)?;
        redis::restore::plan(&self.record, options)
    }

    /// Writes what a Redis server starts on.
    pub fn restore_redis(
        &self,
        options: &redis::restore::Options,
        monitor: &dyn Monitor,
    ) -> Result<redis::restore::Plan> {
        self.expect_kind(redis::KIND)?;
        monitor.step("redis", Some(self.record.bytes));
        let plan = redis::restore::to_directory(&self.reader, &self.record, options, monitor)?;
        monitor.done("redis", "");
        Ok(plan)
    }

    pub fn plan_redis_load(
        &self,
        target: &redis::Address,
        options: &redis::restore::LiveOptions,
    ) -> Result<redis::restore::LivePlan> {
        self.expect_kind(redis::KIND)?;
        redis::restore::plan_live(&self.record, target, options)
    }

    /// Loads keys into a server that lives; returns how many.
    pub fn load_redis(
        &self,
        target: &redis::Address,
        options: &redis::restore::LiveOptions,
        monitor: &dyn Monitor,
    ) -> Result<u64> {
        self.expect_kind(redis::KIND)?;
        monitor.step("redis", None);
        let loaded = redis::restore::to_server(&self.reader, &self.record, target, options, monitor)?;
        monitor.done("redis", "");
        Ok(loaded)
    }

    pub fn plan_database(
        &self,
        target: &postgres::restore::Target,
        options: &postgres::restore::Options,
    ) -> Result<postgres::restore::Plan> {
        self.expect_kind("postgres")?;
        postgres::restore::plan(&self.reader, &self.record, target, options)
    }

    /// Restores, and then compares every row and every object with what was captured.
    pub fn restore_database(
        &self,
        target: &postgres::restore::Target,
        options: &postgres::restore::Options,
        compare: Option<[u8; 16]>,
        monitor: &dyn Monitor,
    ) -> Result<(postgres::restore::Report, Option<postgres::compare::Comparison>)> {
        self.expect_kind("postgres")?;
        let options = &postgres::restore::Options { of: self.in_words(), ..options.clone() };
        let report = postgres::restore::restore(&self.reader, &self.record, target, options, monitor)?;
        let Some(row_key) = compare else { return Ok((report, None)) };
        let compare = postgres::compare::Options {
            jobs: options.jobs,
            selection: options.selection.clone(),
            left_out: postgres::compare::LeftOut::of(options),
            ..postgres::compare::Options::new(row_key)
        };
        let spec = target.server.with_database(&target.database);
        let comparison = postgres::compare::compare(&self.reader, &self.record, &spec, &compare, monitor)?;
        Ok((report, Some(comparison)))
    }
}
