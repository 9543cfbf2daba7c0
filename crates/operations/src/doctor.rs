//! `mainstay doctor`: looks at everything that a backup and a restore will need, one by one, and says what to do about what is
//! missing. Nothing is changed but for one object that is made and removed again in each store that holds a repository.

use crate::{
    access,
    config::{Config, SourceConfig},
    damage,
    points::{self, PointInfo},
    prove::{Kept, kept},
    scratch_folder,
    wal::{self, slots},
};
use mainstay_domain::{
    ByteSize, Clock, Failure, Result, Severity, Silent,
    point::{Problem, ProofLevel},
    time::{HOUR, SECOND, Span},
};
use mainstay_repository::{Repository, RepositoryError, check, read_format};
use mainstay_sources::{
    command,
    postgres::{self, config::PostgresConfig},
    redis,
};
use mainstay_stores::{Store, StoreError};
use serde::Serialize;
use std::{collections::BTreeSet, path::Path, sync::Arc};

/// Nobody waits for a locked table in front of a doctor.
const LOCK_WAIT: Span = Span { nanoseconds: 10 * SECOND };

/// What to do about what is wrong with a cluster's log.
const LOOK_AT_LOG: &str = "`mainstay wal status` shows the archive and the server's side of it.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Good,
    /// Works, and could be better.
    Attention,
    /// A backup or a restore will fail.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// What: `store local`, `repository main`, `shop: source db`.
    pub subject: String,
    pub health: Health,
    pub text: String,
    pub hint: Option<String>,
}

impl Item {
    fn good(subject: &str, text: impl Into<String>) -> Item {
        Item { subject: subject.into(), health: Health::Good, text: text.into(), hint: None }
    }

    fn attention(subject: &str, text: impl Into<String>, hint: &str) -> Item {
        Item {
            subject: subject.into(),
            health: Health::Attention,
            text: text.into(),
            hint: Some(hint.into()),
        }
    }

    fn bad(subject: &str, failure: &Failure) -> Item {
        Item {
            subject: subject.into(),
            health: Health::Bad,
            text: failure.with_causes(),
            hint: failure.hint.clone(),
        }
    }

    /// What a source says about itself.
    fn of(subject: &str, problem: &Problem) -> Item {
        let text = format!("{} {}", problem.object, problem.message);
        let health = match problem.severity {
            Severity::Info => Health::Good,
            Severity::Warning => Health::Attention,
            Severity::Error => Health::Bad,
        };
        Item { subject: subject.into(), health, text: text.trim().into(), hint: None }
    }
}

/// Looks at everything that the configuration names.
pub fn examine(config: &Config, clock: &Arc<dyn Clock>) -> Vec<Item> {
    let mut items = Vec::new();
    for (name, store) in &config.stores {
        let subject = format!("store {name}");
        let opened = mainstay_stores::open(&store.url).map_err(Failure::from);
        match opened.and_then(|store| Ok((holds_repository(&*store)?, store))) {
            // Below the place where a disk should be mounted lies another disk, on which nothing is to be made.
            Ok((false, _)) => {
                let text = "holds no repository, and was not tried: nothing is made in it";
                items.push(Item::attention(&subject, text, access::NOT_THERE));
                continue;
            }
            Ok((true, store)) => items.push(match probe_store(&*store) {
                Ok(()) => Item::good(&subject, "can be written, read and listed, and refuses to overwrite"),
                Err(failure) => Item::bad(&subject, &failure),
            }),
            Err(failure) => items.push(Item::bad(&subject, &failure)),
        }
        items.extend(free_space(&subject, &store.url));
    }
    for name in config.repositories.keys() {
        let subject = format!("repository {name}");
        let opened = access::repository_named(config, name)
            .and_then(|named| access::open(config, &named, clock.clone()));
        match opened {
            Ok(repository) => items.extend(examine_repository(&subject, &repository, &**clock)),
            Err(failure) => items.push(Item::bad(&subject, &failure)),
        }
    }
    let folders: BTreeSet<_> = config.repositories.values().map(access::cache_of).collect();
    items.extend(folders.iter().flatten().filter_map(|folder| cache(folder)));
    for (app_name, app) in &config.apps {
        for (name, source) in &app.sources {
            let subject = format!("{app_name}: source {name}");
            items.extend(examine_source(&subject, source, &**clock));
            if let SourceConfig::Cluster(cluster) = source {
                // One that cannot be asked was named already.
                let concerns = slots::of_server(app_name, name, cluster).concerns;
                items.extend(concerns.iter().map(|text| Item::attention(&subject, text, LOOK_AT_LOG)));
            }
        }
        if app.policies.is_empty() {
            items.push(Item::attention(
                app_name,
                "has no policy: its recovery points are kept until somebody deletes them",
                "Add one under `policies:`, such as { keep: { daily: 7, weekly: 4, monthly: 12 } }.",
            ));
        }
    }
    items.extend(scratch_folder::leftovers().iter().map(|folder| {
        Item::attention(
            "this machine",
            format!("{} was left by a restore test or a recovery that was killed, and holds what was restored", folder.display()),
            "The next restore test, or restore of tables to a moment, removes it: `mainstay verify APP --level restore`.",
        )
    }));
    items
}

fn holds_repository(store: &dyn Store) -> Result<bool> {
    match read_format(store) {
        Err(RepositoryError::NoRepository { .. }) => Ok(false),
        // What is wrong with it is said of the repository.
        Ok(_) | Err(RepositoryError::Damaged { .. } | RepositoryError::Newer { .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// The verbs that a repository relies on, and that the store keeps the first of two.
fn probe_store(store: &dyn Store) -> Result<()> {
    let name = format!("probe/{}", hex::encode(mainstay_keys::random::<16>()));
    store.create(&name, b"first")?;
    let second = store.create(&name, b"second");
    let read = store.read(&name);
    store.delete(&name)?;
    match second {
        Err(StoreError::AlreadyExists { .. }) => {}
        Ok(()) => {
            return Err(Failure::failed(format!("{} overwrites objects that are there", store.describe()))
                .hint("Only one machine may write to such a store."));
        }
        Err(error) => return Err(error.into()),
    }
    match read?.as_slice() {
        b"first" => Ok(()),
        _ => Err(Failure::failed(format!("{} gave back other bytes than were written", store.describe()))
            .hint("Do not keep backups there before this is understood.")),
    }
}

fn free_space(subject: &str, url: &str) -> Option<Item> {
    let mut path = Path::new(url.strip_prefix("file://")?);
    while !path.exists() {
        path = path.parent()?;
    }
    let statistics = rustix::fs::statvfs(path).ok()?;
    let (free, total) =
        (statistics.f_bavail * statistics.f_frsize, statistics.f_blocks * statistics.f_frsize);
    let text = format!("{} free of {}", ByteSize(free), ByteSize(total));
    Some(match percent_used(statistics.f_blocks, statistics.f_bfree, statistics.f_bavail) {
        0..80 => Item::good(subject, text),
        used => Item::attention(
            subject,
            format!("{text} ({used} % used)"),
            "Make room, or prune: a full disk stops every backup.",
        ),
    })
}

/// A cache may be thrown away, and is done without where it cannot be kept; only that shows in how long things take.
fn cache(folder: &Path) -> Option<Item> {
    const ENOUGH: u64 = 64 << 20;
    let existing = folder.ancestors().find(|path| path.is_dir())?;
    let (of, at) = (rustix::fs::statvfs(existing).ok()?, folder.display());
    let free = of.f_bavail.saturating_mul(of.f_frsize);
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let writable = rustix::fs::access(existing, access).is_ok();
    let text = match (writable, free < ENOUGH) {
        (false, _) => format!("{at} cannot be written: each command reads the index anew"),
        (true, true) => {
            format!("{} free in {at}: what does not fit is read anew by each command", ByteSize(free))
        }
        (true, false) => return None,
    };
    Some(Item::attention(
        "cache",
        text,
        "Make room, or name another folder: `cache:` of the repository, or MAINSTAY_CACHE.",
    ))
}

/// As `df` counts: of what this user may use, without the blocks that are kept for root, and rounded up.
fn percent_used(blocks: u64, free: u64, available: u64) -> u64 {
    let used = blocks.saturating_sub(free);
    let usable = used.saturating_add(available);
    if usable == 0 { 0 } else { (u128::from(used) * 100).div_ceil(u128::from(usable)) as u64 }
}

fn examine_repository(subject: &str, repository: &Repository, clock: &dyn Clock) -> Vec<Item> {
    let mut items = Vec::new();
    let points = match points::list(repository, None) {
        Ok(points) => points,
        Err(failure) => return vec![Item::bad(subject, &failure)],
    };
    items.push(Item::good(subject, format!("opens with this key; recovery points: {}", points.len())));
    match damage::all_of(repository) {
        Ok(damage) => items.extend(damage.into_iter().map(|wrong| {
            let text = format!("{}: {}", wrong.object, wrong.text);
            let fails = Failure::verification(text.clone()).hint(wrong.hint.clone());
            if wrong.stops_backups {
                Item::bad(subject, &fails)
            } else {
                Item::attention(subject, text, &wrong.hint)
            }
        })),
        Err(failure) => items.push(Item::bad(subject, &failure)),
    }
    let harm = repository.state().and_then(|state| check::known_harm(repository, &state, &Silent));
    match harm {
        Ok(lost) if lost.is_empty() => {}
        Ok(lost) => items.push(Item::attention(
            subject,
            format!("packs that recovery points need are lost: {}", lost.len()),
            "`mainstay verify APP` names the points. A new backup stores what lay there and can still be captured.",
        )),
        Err(error) => items.push(Item::bad(subject, &error.into())),
    }
    items.extend(points.iter().filter_map(|point| unproven(subject, repository, point)));
    let of_log = wal::check::open_gaps(repository, &points)
        .and_then(|gaps| Ok((gaps, wal::histories::concerns(repository, &points)?)));
    match of_log {
        Ok((gaps, histories)) => {
            let texts = gaps.iter().map(ToString::to_string).chain(histories);
            items.extend(texts.map(|text| Item::attention(subject, text, LOOK_AT_LOG)));
        }
        Err(failure) => items.push(Item::bad(subject, &failure)),
    }
    if let Some(newest) = points.last()
        && newest.summary.finished.since(clock.now()) > HOUR
    {
        items.push(Item::attention(
            subject,
            format!(
                "the newest recovery point, {}, was finished {} hours after what this machine's clock says now",
                newest.id.short(),
                newest.summary.finished.since(clock.now()) / HOUR
            ),
            "Compare this machine's clock with that of the machine that made it.",
        ));
    }
    match crate::keys::list(repository) {
        Ok(recipients) if recipients.len() < 2 => items.push(Item::attention(
            subject,
            "only one key opens it",
            "Add a second one, such as a passphrase, and keep it elsewhere: `mainstay key add --label NAME --passphrase-file FILE`.",
        )),
        Ok(recipients) => items.push(Item::good(subject, format!("{} keys open it", recipients.len()))),
        Err(failure) => items.push(Item::bad(subject, &failure)),
    }
    items
}

/// A point that the log calls proven, while the signed report of it cannot be shown.
fn unproven(subject: &str, repository: &Repository, point: &PointInfo) -> Option<Item> {
    let proof = point.proofs.get(&ProofLevel::Restore)?;
    let why = match kept(repository, &point.id, proof) {
        Ok(Some(Kept::Missing)) => format!("{} is not there", proof.report),
        Ok(Some(Kept::Damaged(why))) => why,
        Ok(None | Some(Kept::Signed(_))) => return None,
        Err(failure) => return Some(Item::bad(subject, &failure)),
    };
    let (app, id) = (&point.summary.app, point.id.short());
    Some(Item::attention(
        subject,
        format!(
            "the signed report of the restore test of {id} is lost: {why}; the point itself is not harmed"
        ),
        &format!("Prove it again: `mainstay verify {app} --point {id} --level restore`."),
    ))
}

fn examine_source(subject: &str, source: &SourceConfig, clock: &dyn Clock) -> Vec<Item> {
    match source {
        SourceConfig::Files(files) => {
            let missing: Vec<_> =
                files.paths.iter().filter(|path| std::fs::symlink_metadata(path).is_err()).collect();
            match (files.validate(), missing.first()) {
                (Err(error), _) => vec![Item::bad(subject, &error.into())],
                (Ok(()), Some(path)) => {
                    let failure = Failure::preflight(format!("{} is not there", path.display()))
                        .hint("Correct the path, or mount what belongs there.");
                    vec![Item::bad(subject, &failure)]
                }
                (Ok(()), None) => vec![Item::good(
                    subject,
                    match files.paths.len() {
                        1 => "its path is there".to_owned(),
                        n => format!("its {n} paths are there"),
                    },
                )],
            }
        }
        SourceConfig::Config(config) => {
            let missing = config.files.iter().find(|path| std::fs::symlink_metadata(path).is_err());
            match (config.validate(), missing) {
                (Err(failure), _) => vec![Item::bad(subject, &failure)],
                (Ok(()), Some(path)) => {
                    let failure = Failure::preflight(format!("{} is not there", path.display()))
                        .hint("Correct the path, or leave it out.");
                    vec![Item::bad(subject, &failure)]
                }
                (Ok(()), None) => {
                    let (files, tables) = (config.files.len(), config.tables.len());
                    vec![Item::good(subject, format!("{files} paths are there, {tables} tables are named"))]
                }
            }
        }
        SourceConfig::Command(config) => vec![match command::probe(config) {
            Ok(()) => Item::good(subject, format!("{} can be started", config.run)),
            Err(failure) => Item::bad(subject, &failure),
        }],
        SourceConfig::Redis(config) => match redis::probe(config) {
            Ok(probe) => {
                let found = Item::good(subject, probe.describe());
                std::iter::once(found).chain(probe.problems.iter().map(|p| Item::of(subject, p))).collect()
            }
            Err(failure) => vec![Item::bad(subject, &failure)],
        },
        SourceConfig::Cluster(config) => match postgres::cluster::probe(config) {
            Ok(server) => examine_cluster(subject, &server),
            Err(failure) => vec![Item::bad(subject, &failure)],
        },
        SourceConfig::Postgres(config) => {
            let patient = PostgresConfig { lock_wait: config.lock_wait.min(LOCK_WAIT), ..(**config).clone() };
            let mut items = match postgres::capture::probe(&patient, clock, &Silent) {
                Ok(probe) => examine_database(subject, &probe),
                Err(failure) => vec![Item::bad(subject, &failure)],
            };
            items.extend(half_done(subject, config));
            items.extend(unfinished(subject, config));
            items
        }
    }
}

/// What a replacement that broke off has left behind. A server that cannot be asked was named already.
fn half_done(subject: &str, config: &PostgresConfig) -> Vec<Item> {
    let Ok(spec) = config.connect_spec() else { return Vec::new() };
    let found = postgres::replace::half_done(&spec.with_database("postgres"), &spec.database);
    let item = |half: &postgres::replace::HalfDone| {
        let failure = Failure::failed(half.to_string()).hint(
            "Begin `mainstay restore APP --replace` again: it settles this before it asks anything, and nothing is lost.",
        );
        Item::bad(subject, &failure)
    };
    found.iter().flatten().map(item).collect()
}

/// What restores that were broken off have left on the same server. Of the source itself its probe says so.
fn unfinished(subject: &str, config: &PostgresConfig) -> Vec<Item> {
    let Ok(spec) = config.connect_spec() else { return Vec::new() };
    let found = postgres::restore::unfinished(&spec.with_database("postgres")).unwrap_or_default();
    let others = found.iter().filter(|rest| rest.database != spec.database);
    others.map(|rest| Item::attention(subject, rest.to_string(), &rest.hint())).collect()
}

fn examine_cluster(subject: &str, server: &postgres::cluster::Server) -> Vec<Item> {
    let setting = |wanted: &str| {
        server.settings.iter().find(|(name, _)| name == wanted).map_or("", |(_, value)| value.as_str())
    };
    let checksums = if server.data_checksums { "with page checksums" } else { "without page checksums" };
    let mut items = vec![Item::good(
        subject,
        format!("cluster {} of PostgreSQL {}, {checksums}", server.system, server.version_num / 10_000),
    )];
    if setting("archive_mode") == "off" || setting("archive_command").is_empty() {
        items.push(Item::attention(
            subject,
            "its write-ahead log (WAL) is not archived: it can be restored to its base backups, and to no moment between them",
            "Set archive_mode = on and archive_command = 'mainstay wal push %p', and restart the server.",
        ));
    }
    items
}

fn examine_database(subject: &str, probe: &postgres::capture::Probe) -> Vec<Item> {
    let found = format!(
        "PostgreSQL {} with pg_dump {}; {} tables, about {}",
        probe.server_version, probe.pg_dump, probe.tables, probe.estimate
    );
    let mut items = vec![Item::good(subject, found)];
    items.extend(probe.problems.iter().map(|problem| Item::of(subject, problem)));
    items
}

#[cfg(test)]
mod tests {
    use super::percent_used;

    #[test]
    fn a_disk_is_as_full_as_df_says() {
        // Five of a hundred blocks are kept for root.
        let cases = [((100, 55, 50), 48), ((100, 5, 0), 100), ((100, 100, 95), 0), ((1000, 799, 799), 21)];
        for ((blocks, free, available), used) in cases {
            assert_eq!(percent_used(blocks, free, available), used, "{blocks} {free} {available}");
        }
        // Much of an overlay or a quota belongs to others: what is left of our own share counts.
        assert_eq!(percent_used(1000, 900, 900), 10);
        assert_eq!(percent_used(0, 0, 0), 0);
        assert_eq!(percent_used(u64::MAX, 0, 0), 100);
    }
}
