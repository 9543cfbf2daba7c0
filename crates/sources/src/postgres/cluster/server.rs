//! The server's side of a base backup: what it says of itself, and the session that begins and ends the backup.
//!
//! One session from `pg_backup_start` to `pg_backup_stop`: a session that ends takes its backup with it. While the backup
//! runs, a temporary replication slot of that session keeps the log that it needs, where the server has a slot to give.

use super::{
    build, control,
    facts::{RECOVERY_SETTINGS, Tablespace},
};
use crate::postgres::wire::{ConnectSpec, Connection, WireError, quote_literal};
use mainstay_domain::{
    Failure, Result, Severity, Time,
    monitor::Monitor,
    wal::{Lsn, SegmentSize},
};
use std::path::{Path, PathBuf};

/// What the server says of itself and its cluster.
#[derive(Debug, Clone)]
pub struct Server {
    pub version_num: u32,
    pub version_text: String,
    pub system: u64,
    pub timeline: u32,
    /// `None`: this user may not know.
    pub data_directory: Option<PathBuf>,
    pub segment_size: SegmentSize,
    pub block_size: u32,
    pub data_checksums: bool,
    pub in_recovery: bool,
    pub tablespaces: Vec<Tablespace>,
    pub settings: Vec<(String, String)>,
    pub databases: Vec<String>,
    /// The role that initdb made.
    pub superuser: String,
    /// Configuration files, wherever they are.
    pub config_files: Vec<PathBuf>,
}

/// Settings worth recording beside those that recovery needs.
const TOLD: [&str; 8] = [
    "archive_mode",
    "archive_command",
    "wal_level",
    "full_page_writes",
    "data_checksums",
    "shared_preload_libraries",
    "config_file",
    "hba_file",
];

impl Server {
    /// # Errors
    /// `Preflight`: this user may not know; or its files cannot be read here.
    pub fn ask(connection: &mut Connection) -> Result<Server> {
        let version_num = connection.server_version_num();
        let rows = connection.query(
            "SELECT version(), (SELECT system_identifier FROM pg_control_system()),
                    (SELECT timeline_id FROM pg_control_checkpoint()),
                    (SELECT setting FROM pg_settings WHERE name = 'data_directory'), pg_is_in_recovery(),
                    (SELECT setting::bigint * CASE unit WHEN '8kB' THEN 8192 WHEN 'B' THEN 1 ELSE 1 END
                       FROM pg_settings WHERE name = 'wal_segment_size'),
                    current_setting('block_size'), current_setting('data_checksums'),
                    (SELECT rolname FROM pg_roles WHERE oid = 10), current_setting('wal_block_size'),
                    current_setting('segment_size')",
        );
        let rows = rows.map_err(|error| refused(error, "read what a backup must know"))?;
        let row = rows.iter().next().ok_or_else(|| Failure::failed("the server says nothing of itself"))?;
        let number = |column: usize| row.text(column).parse::<u64>().unwrap_or_default();
        let segment_size = SegmentSize::try_from(number(5)).map_err(|error| {
            Failure::failed("the server's WAL has segments of an unknown size").caused_by(error)
        })?;
        build::refuse_unreadable(number(6) as u32, number(9) as u32, &row.text(0))?;
        build::refuse_other_files(&row.text(10))?;
        let mut server = Server {
            version_num,
            version_text: row.text(0),
            system: number(1),
            timeline: number(2) as u32,
            data_directory: row.opt(3).filter(|path| !path.is_empty()).map(PathBuf::from),
            segment_size,
            block_size: number(6) as u32,
            data_checksums: row.text(7) == "on",
            in_recovery: row.text(4) == "t",
            tablespaces: Vec::new(),
            settings: Vec::new(),
            databases: Vec::new(),
            superuser: row.text(8),
            config_files: Vec::new(),
        };
        server.ask_further(connection)?;
        Ok(server)
    }

    fn ask_further(&mut self, connection: &mut Connection) -> Result<()> {
        let wanted: Vec<String> =
            RECOVERY_SETTINGS.iter().chain(&TOLD).map(|name| quote_literal(name)).collect();
        let settings = connection.query(&format!(
            "SELECT name, setting FROM pg_settings WHERE name IN ({}) ORDER BY name",
            wanted.join(", ")
        ))?;
        self.settings = settings.iter().map(|row| (row.text(0), row.text(1))).collect();
        let spaces = connection.query(
            "SELECT oid, spcname, pg_tablespace_location(oid) FROM pg_tablespace
              WHERE pg_tablespace_location(oid) <> '' ORDER BY oid",
        )?;
        self.tablespaces = spaces
            .iter()
            .map(|row| Tablespace {
                oid: row.text(0).parse().unwrap_or_default(),
                name: row.text(1),
                location: row.text(2).into(),
            })
            // In the data directory itself: not elsewhere, so not apart.
            .filter(|space| space.location.is_absolute())
            .collect();
        let databases =
            connection.query("SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname")?;
        self.databases = databases.iter().map(|row| row.text(0)).collect();
        // Who may not read them gets the files that the settings name.
        let files = "SELECT DISTINCT f FROM (
               SELECT sourcefile AS f FROM pg_file_settings
               UNION ALL SELECT setting FROM pg_settings WHERE name IN ('config_file', 'hba_file', 'ident_file')) AS all_files
              WHERE f IS NOT NULL AND f <> '' ORDER BY f";
        let named = "SELECT setting FROM pg_settings WHERE name IN ('config_file', 'hba_file', 'ident_file')
                        AND setting <> '' ORDER BY setting";
        let files = connection.query(files).or_else(|_| connection.query(named))?;
        self.config_files = files.iter().map(|row| row.text(0).into()).collect();
        Ok(())
    }
}

/// A backup that the server knows of.
pub struct Backup {
    connection: Connection,
    new_names: bool,
    /// Where replay begins.
    pub start: Lsn,
}

/// What the server says at the end, to be kept byte for byte.
#[derive(Debug, Clone)]
pub struct Stopped {
    pub stop: Lsn,
    /// Not before that, by the server's clock.
    pub at: Time,
    pub backup_label: String,
    pub tablespace_map: String,
}

impl Backup {
    /// Begins. The checkpoint that this takes is made at once, not spread over minutes.
    pub fn start(mut connection: Connection, label: &str, monitor: &dyn Monitor) -> Result<Backup> {
        let new_names = connection.server_version_num() >= 150_000;
        connection
            .execute("SET statement_timeout = 0; SET idle_session_timeout = 0; SET lock_timeout = 0")
            .map_err(Failure::from)?;
        let slot = format!("mainstay_backup_{}", connection.process_id());
        let kept = connection.execute(&format!(
            "SELECT pg_create_physical_replication_slot({}, true, true)",
            quote_literal(&slot)
        ));
        if let Err(error) = kept {
            let message = format!(
                "the WAL that the backup needs is not held by a slot ({error}); if the server removes it first, the backup fails"
            );
            monitor.notice(Severity::Info, &message);
        }
        let label = quote_literal(label);
        let sql = match new_names {
            true => format!("SELECT pg_backup_start({label}, true)"),
            false => format!("SELECT pg_start_backup({label}, true, false)"),
        };
        let start = connection.query_text(&sql).map_err(|error| refused(error, "begin a backup"))?;
        let start = parse_lsn(&start.unwrap_or_default())?;
        Ok(Backup { connection, new_names, start })
    }

    /// What the server says of itself while the backup runs.
    pub fn server(&mut self) -> Result<Server> {
        Server::ask(&mut self.connection)
    }

    /// Refuses a data directory that is not this server's.
    pub fn refuse_another_servers(&mut self, data_directory: &Path) -> Result<()> {
        control::refuse_another_servers(data_directory, &mut self.connection)
    }

    /// Ends it. An error means that what was copied is of no use.
    pub fn stop(&mut self) -> Result<Stopped> {
        let sql = match self.new_names {
            true => "SELECT lsn, labelfile, spcmapfile FROM pg_backup_stop(false)",
            false => "SELECT lsn, labelfile, spcmapfile FROM pg_stop_backup(false, false)",
        };
        let rows = self.connection.query(sql).map_err(|error| match error.code() {
            // Object not in prerequisite state: promoted, or the session's backup is gone.
            Some("55000") => Failure::failed("the server says that this backup is not to be used")
                .hint("A standby was promoted, or the server restarted, during the backup: run it again.")
                .caused_by(error),
            _ => refused(error, "end the backup"),
        })?;
        let row = rows
            .iter()
            .next()
            .ok_or_else(|| Failure::failed("the server says nothing of the backup's end"))?;
        let stopped = Stopped {
            stop: parse_lsn(&row.text(0))?,
            at: clock_of(&mut self.connection)?,
            backup_label: row.text(1),
            tablespace_map: row.text(2),
        };
        self.refuse_another_timeline(timeline_of_label(&stopped.backup_label))?;
        Ok(stopped)
    }

    /// A standby whose primary was replaced meanwhile goes on along another timeline, and says nothing: then the log of this
    /// backup is not in the segments that its label leads to.
    fn refuse_another_timeline(&mut self, begun: Option<u32>) -> Result<()> {
        let now = self.connection.query_text(
            "SELECT min_recovery_end_timeline FROM pg_control_recovery() WHERE pg_is_in_recovery()",
        )?;
        match (begun, now.and_then(|timeline| timeline.parse::<u32>().ok())) {
            (Some(begun), Some(now)) if now > begun => Err(Failure::failed(format!(
                "the standby went over from timeline {begun} to {now} during its backup"
            ))
            .hint("Another server was promoted meanwhile: run the backup again.")),
            _ => Ok(()),
        }
    }
}

/// What time it is for a server.
pub fn clock_of(connection: &mut Connection) -> Result<Time> {
    let said = connection.query_text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")?;
    let microseconds = said.unwrap_or_default().parse::<i64>();
    let microseconds = microseconds
        .map_err(|error| Failure::failed("the server says no time that makes sense").caused_by(error))?;
    Ok(Time(microseconds.saturating_mul(1000)))
}

/// The timeline on which a backup was taken, as its label says: the name of the segment that it starts in.
pub fn timeline_of_label(label: &str) -> Option<u32> {
    let (_, rest) = label.split_once("(file ")?;
    u32::from_str_radix(rest.get(..8)?, 16).ok()
}

fn parse_lsn(text: &str) -> Result<Lsn> {
    text.parse().map_err(|error| Failure::failed("the server names an unknown position").caused_by(error))
}

fn refused(error: WireError, what: &str) -> Failure {
    match error.code() {
        Some("42501") => Failure::preflight(format!("this user may not {what}"))
            .hint(
                "Use a superuser, or grant it: GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) \
                 TO the user; GRANT pg_monitor TO the user; ALTER ROLE the user REPLICATION.",
            )
            .caused_by(error),
        _ => Failure::from(error),
    }
}

/// Connects for a backup.
pub fn connect(spec: &ConnectSpec) -> Result<Connection> {
    Ok(Connection::connect(spec)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_names_the_timeline() {
        let label =
            "START WAL LOCATION: 0/2000028 (file 0000000A0000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n";
        assert_eq!(timeline_of_label(label), Some(10));
        assert_eq!(timeline_of_label("START"), None);
    }
}
