//! What `pg_dump` and `pg_dumpall` write: the schema and the large objects under the leader's snapshot, and the roles.
//!
//! Their output goes straight into the repository. A child's word counts only together with its exit status: a stream of
//! one that failed is not kept.

use super::abort::Abort;
use crate::postgres::{
    facts::QualifiedName,
    tools::{self, Tools},
    wire::{ConnectSpec, Connection, WireError, text},
};
use mainstay_domain::{
    Failure, Kind, Monitor,
    stream::{Content, Pool, Sink},
    time::Span,
};
use std::{
    ffi::OsString,
    io::{self, Read},
    os::unix::ffi::OsStringExt,
};

pub(super) struct Dumps<'a> {
    pub tools: &'a Tools,
    pub spec: &'a ConnectSpec,
    pub sink: &'a dyn Sink,
    pub monitor: &'a dyn Monitor,
    pub abort: &'a Abort,
    pub snapshot_id: &'a str,
    pub lock_wait: Span,
    /// The database's.
    pub encoding: &'a str,
    /// Tables that we may not lock, and so `pg_dump` neither.
    pub untouchable: Vec<QualifiedName>,
}

impl Dumps<'_> {
    /// The definitions of everything in the database: an archive of `pg_dump -Fc`.
    pub fn schema(&self) -> Result<Content, Failure> {
        let mut arguments = self.archive();
        arguments.push("--schema-only".into());
        arguments.push(format!("--lock-wait-timeout={}", self.lock_wait.nanoseconds / 1_000_000).into());
        for table in &self.untouchable {
            let pattern = format!("--exclude-table={}", table.quoted());
            arguments.push(OsString::from_vec(text::encode(&pattern).into_owned()));
        }
        self.run("pg_dump", arguments).map_err(|mut failure| {
            // pg_dump bounds the wait for a lock by a statement timeout.
            if failure.message.contains("timeout") && failure.message.contains("LOCK TABLE") {
                failure.kind = Kind::Busy;
                failure = failure.hint(
                    "A session waits for an exclusive lock on a table (a migration?), and all others behind it: see \
                     pg_locks. Try again when it is over.",
                );
            }
            failure.during("dumping the schema")
        })
    }

    /// The large objects with owners, comments and rights, and nothing else.
    pub fn blobs(&self) -> Result<Content, Failure> {
        let mut arguments = self.archive();
        arguments.extend(["--data-only", "--blobs", "--exclude-table=*.*"].map(OsString::from));
        self.run("pg_dump", arguments).map_err(|f| f.during("dumping the large objects"))
    }

    /// Roles, their memberships and settings, and tablespaces, as SQL. Not part of the snapshot: they belong to the server.
    pub fn globals(&self, passwords: bool) -> Result<Content, Failure> {
        let mut arguments: Vec<OsString> = ["--globals-only", "--no-password"].map(OsString::from).into();
        arguments.push("--database".into());
        arguments.push((&self.spec.database).into());
        if !passwords {
            arguments.push("--no-role-passwords".into());
        }
        arguments.push(self.in_encoding());
        self.run("pg_dumpall", arguments).map_err(|f| f.during("dumping the roles"))
    }

    fn archive(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> =
            ["--format=custom", "--compress=0", "--no-password"].map(OsString::from).into();
        arguments.push(format!("--snapshot={}", self.snapshot_id).into());
        arguments.push(self.in_encoding());
        arguments
    }

    /// Names are written as we read them from the catalogue, whatever the database's own encoding.
    fn in_encoding(&self) -> OsString {
        let encoding = if self.encoding == "SQL_ASCII" { "SQL_ASCII" } else { "UTF8" };
        format!("--encoding={encoding}").into()
    }

    fn run(&self, program: &str, arguments: Vec<OsString>) -> Result<Content, Failure> {
        let mut command = tools::command(&self.tools.program(program), Some(self.spec));
        command.args(arguments);
        let mut child = tools::start(command)?;
        self.abort.watch_child(child.killer());
        let mut reader = Watched { inner: child.stdout(), dumps: self };
        let stored = self.sink.put_reader(Pool::Data, &mut reader);
        drop(reader); // a child that still writes must not hang
        match (child.finish(), stored) {
            // The repository's own failure is the cause, the child's broken pipe its consequence.
            (_, Err(failure)) => Err(failure),
            (Err(failure), Ok(_)) => Err(failure),
            (Ok(_), Ok(content)) => Ok(content),
        }
    }
}

/// Tells the monitor of what passes, and ends when the capture ends.
struct Watched<'a, R> {
    inner: R,
    dumps: &'a Dumps<'a>,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.dumps.abort.stopped() {
            return Err(io::Error::other("the capture was stopped"));
        }
        let n = self.inner.read(buf)?;
        self.dumps.monitor.advance(0, n as u64);
        Ok(n)
    }
}

/// Large objects there are, and how many of them this user may not read.
pub(super) fn count_large_objects(connection: &mut Connection) -> Result<(u64, u64), WireError> {
    let rows = connection.query(
        "SELECT count(*), count(*) FILTER (WHERE NOT (
                    current_setting('is_superuser')::bool OR current_setting('lo_compat_privileges')::bool
                    OR pg_has_role(lomowner, 'USAGE')
                    OR EXISTS (SELECT 1 FROM aclexplode(lomacl) a WHERE a.privilege_type = 'SELECT'
                                  AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))))
           FROM pg_largeobject_metadata",
    )?;
    let row = rows.iter().next().ok_or_else(|| WireError::Protocol("no count".to_owned()))?;
    Ok((row.int(0)?.unsigned_abs(), row.int(1)?.unsigned_abs()))
}

/// Whether role passwords can be read.
pub(super) fn may_read_role_passwords(connection: &mut Connection) -> Result<bool, WireError> {
    Ok(connection.query_text("SELECT has_table_privilege('pg_authid', 'SELECT')")?.as_deref() == Some("t"))
}
