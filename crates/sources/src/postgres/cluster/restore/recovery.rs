//! What a server is told about its recovery: settings between two marks in `postgresql.auto.conf`, and the signal file.

use super::{
    super::{ClusterFacts, facts::RECOVERY_SETTINGS},
    Plan,
    writing::Writing,
};
use mainstay_domain::{Failure, Lsn, Result, Time};
use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::Path,
};

/// Where recovery is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// As soon as the cluster is consistent: the end of the base backup.
    Immediate,
    /// The end of the archived log.
    Latest,
    /// The last transaction that ended at or before this time.
    Time(Time),
    Lsn(Lsn),
    /// Up to and with this transaction.
    Xid(u64),
    /// A named restore point.
    Name(String),
}

/// What the server does once it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// Ends recovery and takes writes, on a timeline of its own.
    #[default]
    Promote,
    /// Stays in recovery and answers queries.
    Pause,
    Shutdown,
}

/// How recovery goes.
#[derive(Debug, Clone)]
pub struct Recovery {
    pub target: Target,
    pub timeline: u32,
    /// What the server runs to get a segment: with `%f` and `%p`.
    pub restore_command: String,
    pub action: Action,
    /// Follow the archive for ever, as a warm standby, over every failover.
    pub standby: bool,
    /// Of a standby: where it streams from, besides (`primary_conninfo`).
    pub primary: Option<String>,
    /// Archive as its configuration says, once recovery is over: it takes the original's place.
    pub archive: bool,
}

/// A copy that lives beside its original must not archive into the same place, and must not take what the original's
/// subscriptions are sent: its publishers would believe that the original has it. And it has no standby: a commit would wait for ever.
const BESIDE_ITS_ORIGINAL: &str =
    "archive_mode = 'off'\nmax_logical_replication_workers = '0'\nsynchronous_standby_names = ''\n";

/// A server that reads this does not start: there is no such file. One that is told another on its command line does, and that is only
/// ours, which nobody else can reach.
const CLOSED: &str = "hba_file = '/this copy was not masked to the end; remove it'\n";

/// Lets whoever may start a directory that was restored closed.
pub fn open_up(data: &Path) -> Result<()> {
    let auto = data.join("postgresql.auto.conf");
    let failed = |error| Failure::failed(format!("{} cannot be written", auto.display())).caused_by(error);
    let text = fs::read(&auto).map_err(failed)?;
    let mut kept = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n').filter(|line| *line != CLOSED.as_bytes()) {
        kept.extend_from_slice(line);
    }
    // In its place, so that it keeps its owner; a half one names no file to be read by either.
    let mut file = fs::OpenOptions::new().write(true).truncate(true).open(&auto).map_err(failed)?;
    file.write_all(&kept).and_then(|()| file.sync_all()).map_err(failed)
}

impl Writing<'_> {
    /// Settings for recovery, and what a data directory without its own configuration needs to start at all.
    pub(super) fn configure(
        &self,
        data: &Path,
        plan: &Plan,
        recovery: Option<&Recovery>,
        raised: &[(String, String)],
        closed: bool,
    ) -> Result<()> {
        for (name, text) in [
            (
                "postgresql.conf",
                "# The configuration of this server was elsewhere; see the directory beside this one.\n",
            ),
            ("pg_hba.conf", "local all all peer\n"),
            ("pg_ident.conf", ""),
        ] {
            let path = data.join(name);
            if !path.exists() {
                self.bytes(text.as_bytes(), &path)?;
            }
        }
        let auto = data.join("postgresql.auto.conf");
        let kept = match fs::read(&auto) {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                return Err(Failure::failed(format!("{} cannot be read", auto.display())).caused_by(error));
            }
        };
        let mut text = format!("{BEGIN}\n");
        let settings = recovery.iter().flat_map(|recovery| recovery.settings(&plan.facts));
        for (name, value) in settings.chain(raised.iter().cloned()) {
            let _ = writeln!(text, "{name} = {}", quoted(&value));
        }
        if recovery.is_none_or(|recovery| !recovery.archive) {
            text += BESIDE_ITS_ORIGINAL;
        }
        if closed {
            text += CLOSED;
        }
        let _ = writeln!(text, "{END}");
        self.bytes(&[without_ours(&kept), text.into_bytes()].concat(), &auto)?;
        let Some(recovery) = recovery else { return Ok(()) };
        let signal = if recovery.standby { "standby.signal" } else { "recovery.signal" };
        self.bytes(b"", &data.join(signal))
    }
}

/// A value as the server's configuration files have it. There a backslash begins an escape, other than in SQL.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// What recovery needs stands between these. What names a target has no meaning once recovery is over; `archive_mode`,
/// `max_logical_replication_workers`, `synchronous_standby_names` and the `max_…` that recovery must not be below stay in force until they are reset.
const BEGIN: &str = "# Begin of what mainstay restore wrote. When recovery is over, reset what shall not stay: ALTER SYSTEM RESET.";
const END: &str = "# End of what mainstay restore wrote.";

/// The settings of a cluster without those of an earlier recovery. Any byte may stand in them.
///
/// `ALTER SYSTEM` leaves comments out when it writes the file anew: so what only recovery reads is known by its name too, and
/// two targets would keep the server from starting. All else is the cluster's own.
fn without_ours(settings: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut ours = false;
    for line in settings.split_inclusive(|byte| *byte == b'\n') {
        let text = line.trim_ascii();
        ours |= text == BEGIN.as_bytes();
        if !ours && !is_of_recovery(text) {
            kept.extend_from_slice(line);
        }
        ours &= text != END.as_bytes();
    }
    if kept.last().is_some_and(|byte| *byte != b'\n') {
        kept.push(b'\n');
    }
    kept
}

/// A setting that only a server in recovery reads.
fn is_of_recovery(line: &[u8]) -> bool {
    let end = line.iter().position(|byte| *byte == b'=').unwrap_or(line.len());
    let name = line[..end].trim_ascii();
    let known: [&[u8]; 4] =
        [b"restore_command", b"archive_cleanup_command", b"recovery_end_command", b"primary_conninfo"];
    known.contains(&name) || name.starts_with(b"recovery_target")
}

impl Recovery {
    /// The settings, in the order in which they are written.
    pub fn settings(&self, facts: &ClusterFacts) -> Vec<(String, String)> {
        let mut settings: Vec<(String, String)> = Vec::new();
        let mut set = |name: &str, value: String| settings.push((name.to_owned(), value));
        // A server in recovery must not be below the primary in these, whatever its own configuration says.
        for (name, value) in
            facts.settings.iter().filter(|(name, _)| RECOVERY_SETTINGS.contains(&name.as_str()))
        {
            set(name, value.clone());
        }
        set("restore_command", self.restore_command.clone());
        // Those of the original's configuration would work on what belongs to the original.
        set("archive_cleanup_command", String::new());
        set("recovery_end_command", String::new());
        if self.standby {
            set("recovery_target_timeline", "latest".to_owned());
            if let Some(primary) = &self.primary {
                set("primary_conninfo", primary.clone());
            }
            return settings;
        }
        set("recovery_target_timeline", self.timeline.to_string());
        set("recovery_target_inclusive", "on".into());
        match &self.target {
            Target::Immediate => set("recovery_target", "immediate".into()),
            Target::Latest => {}
            Target::Time(time) => set("recovery_target_time", postgres_time(*time)),
            Target::Lsn(lsn) => set("recovery_target_lsn", lsn.to_string()),
            Target::Xid(xid) => set("recovery_target_xid", xid.to_string()),
            Target::Name(name) => set("recovery_target_name", name.clone()),
        }
        let action = match self.action {
            Action::Promote => "promote",
            Action::Pause => "pause",
            Action::Shutdown => "shutdown",
        };
        if self.target != Target::Latest {
            set("recovery_target_action", action.into());
        }
        settings
    }
}

/// As PostgreSQL reads it, with all six digits that it keeps.
pub fn postgres_time(time: Time) -> String {
    jiff::Timestamp::from_microsecond(time.0.div_euclid(1000))
        .map(|stamp| stamp.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_clusters_own_settings_nothing_is_lost_and_of_an_earlier_recovery_nothing_stays() {
        let own = b"# Do not edit this file manually!\narchive_mode = 'on'\nwork_mem = '\xe4\xff'\nmax_connections = '7'";
        let earlier = format!("\n{BEGIN}\nmax_connections = '500'\n{BESIDE_ITS_ORIGINAL}{END}\n");
        let all = [&own[..], earlier.as_bytes(), b"port = '5433'\n"].concat();
        assert_eq!(without_ours(&all), [&own[..], b"\nport = '5433'\n"].concat());
        // ALTER SYSTEM wrote the file anew: its comments are gone.
        let anew = b"restore_command = 'false'\nrecovery_target_xid = '7'\narchive_mode = 'on'\n";
        assert_eq!(without_ours(anew), b"archive_mode = 'on'\n");
        assert_eq!(without_ours(own), [&own[..], b"\n"].concat());
    }
}
