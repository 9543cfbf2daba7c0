//! A replication session between streams: who the server is, its slots, its timelines.

use super::{
    backup::{BaseBackup, Extent},
    stream::{LogStream, Streamed},
};
use crate::postgres::wire::{Begun, ConnectSpec, Connection, ServerMessage, WireError, quote_ident};
use mainstay_domain::{
    Failure, Kind, Result,
    wal::{Lsn, SegmentSize},
};

/// Who the server is, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub system: u64,
    pub timeline: u32,
    /// Up to where its log is durable there.
    pub flushed: Lsn,
}

/// What can go wrong with a session, by what its user can do about it.
#[derive(Debug)]
pub enum Trouble {
    /// The server does not have the WAL any more that was asked for, or has given up the slot.
    Gone(Failure),
    /// The connection is lost, or the server is away or busy: another attempt may succeed.
    Passing(Failure),
    Other(Failure),
}

impl Trouble {
    pub fn into_failure(self) -> Failure {
        match self {
            Trouble::Gone(failure) | Trouble::Passing(failure) | Trouble::Other(failure) => failure,
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Other(failure)
    }
}

impl From<WireError> for Trouble {
    fn from(error: WireError) -> Trouble {
        match error.code() {
            // Undefined file: the segment was removed. Not in prerequisite state: the slot was given up.
            Some("58P01" | "55000") => Trouble::Gone(
                Failure::new(
                    Kind::Refused,
                    "the server does not have the WAL any more that is to be received",
                )
                .caused_by(error),
            ),
            Some("42501" | "28000" | "28P01") => Trouble::Other(not_allowed(error)),
            // Object in use: a receiver that died is still believed to be there. The server is starting or stopping.
            Some("55006" | "57P01" | "57P02" | "57P03" | "53300") => Trouble::Passing(error.into()),
            Some(_) => Trouble::Other(error.into()),
            None => match error {
                WireError::Connect { .. } | WireError::Lost(_) => Trouble::Passing(error.into()),
                error => Trouble::Other(error.into()),
            },
        }
    }
}

fn not_allowed(error: WireError) -> Failure {
    Failure::preflight("this user may not open a replication session")
        .hint(
            "Allow it: ALTER ROLE the user REPLICATION; and in pg_hba.conf a line for the database `replication`: host replication \
             USER ADDRESS scram-sha-256.",
        )
        .caused_by(error)
}

/// A session with a server.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
}

impl Session {
    /// Opens a session under a name by which `synchronous_standby_names` can call it.
    pub fn open(spec: &ConnectSpec, application_name: &str) -> Result<Session, Trouble> {
        let spec = ConnectSpec {
            replication: Some("true".to_owned()),
            application_name: application_name.to_owned(),
            ..spec.clone()
        };
        Ok(Session { connection: Connection::connect(&spec)? })
    }

    pub fn version_num(&self) -> u32 {
        self.connection.server_version_num()
    }

    pub fn identify(&mut self) -> Result<Identity, Trouble> {
        let rows = self.connection.query("IDENTIFY_SYSTEM")?;
        let row = rows.iter().next().ok_or_else(|| unknown("who it is"))?;
        Ok(Identity {
            system: row.text(0).parse().map_err(|_| unknown("who it is"))?,
            timeline: row.text(1).parse().map_err(|_| unknown("its timeline"))?,
            flushed: lsn(&row.text(2))?,
        })
    }

    /// A setting's value, as SHOW prints it.
    pub fn setting(&mut self, name: &str) -> Result<String, Trouble> {
        Ok(self.connection.query_text(&format!("SHOW {name}"))?.unwrap_or_default())
    }

    pub fn segment_size(&mut self) -> Result<SegmentSize, Trouble> {
        let shown = self.setting("wal_segment_size")?;
        // `16MB` is 16 MiB to PostgreSQL.
        let bytes = ["kB", "MB", "GB"].iter().zip([10, 20, 30]).find_map(|(unit, shift)| {
            let number: u64 = shown.strip_suffix(unit)?.parse().ok()?;
            Some(number << shift)
        });
        let size = bytes.and_then(|bytes| SegmentSize::try_from(bytes).ok());
        Ok(size.ok_or_else(|| unknown("how large its segments are"))?)
    }

    /// Makes a physical slot that keeps the log from now on; `false` if there is one of that name.
    pub fn create_slot(&mut self, name: &str) -> Result<bool, Trouble> {
        let command = format!("CREATE_REPLICATION_SLOT {} PHYSICAL RESERVE_WAL", quote_ident(name));
        match self.connection.query(&command) {
            Ok(_) => Ok(true),
            // Duplicate object.
            Err(error) if error.is("42710") => Ok(false),
            // Configuration limit exceeded.
            Err(error) if error.is("53400") => Err(Trouble::Other(
                Failure::preflight(format!("the slot {name} cannot be made: the server has no slot to give"))
                    .hint("Raise max_replication_slots, or drop a slot that nobody uses.")
                    .caused_by(error),
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a slot that keeps the log for as long as this session lives.
    pub fn create_temporary_slot(&mut self, name: &str) -> Result<(), Trouble> {
        let name = quote_ident(name);
        self.connection.query(&format!("CREATE_REPLICATION_SLOT {name} TEMPORARY PHYSICAL RESERVE_WAL"))?;
        Ok(())
    }

    /// Gives the server the manifest of an earlier backup, for an increment on it (PostgreSQL 17 and later). [`Trouble::Gone`]: it
    /// is none to build on.
    pub fn upload_manifest(
        &mut self,
        write: impl FnOnce(&mut dyn std::io::Write) -> Result<()>,
    ) -> Result<(), Trouble> {
        self.connection.copy_in("UPLOAD_MANIFEST", |copy| write(copy)).map_err(super::backup::refused)?;
        Ok(())
    }

    /// Begins a base backup. The checkpoint that this takes is made at once. What the server says while it gets ready, which may
    /// take minutes, is heard.
    pub fn base_backup(
        &mut self,
        label: &str,
        extent: Extent,
        hear: &mut dyn FnMut(&ServerMessage),
    ) -> Result<BaseBackup<'_>, Trouble> {
        BaseBackup::begin(&mut self.connection, label, extent, hear)
    }

    /// What the server warned of.
    pub fn take_notices(&mut self) -> Vec<ServerMessage> {
        self.connection.take_notices()
    }

    pub fn process_id(&self) -> i32 {
        self.connection.process_id()
    }

    pub fn drop_slot(&mut self, name: &str) -> Result<(), Trouble> {
        self.connection.query(&format!("DROP_REPLICATION_SLOT {}", quote_ident(name)))?;
        Ok(())
    }

    /// From where on a slot keeps the log; `None` if it keeps none, or the server (14) does not say.
    pub fn slot_start(&mut self, name: &str) -> Result<Option<Lsn>, Trouble> {
        if self.version_num() < 150_000 {
            return Ok(None);
        }
        let rows = self.connection.query(&format!("READ_REPLICATION_SLOT {}", quote_ident(name)))?;
        let start = rows.iter().next().and_then(|row| row.opt(1));
        Ok(start.map(|text| lsn(&text)).transpose()?)
    }

    /// The history file of a timeline, byte for byte.
    pub fn history(&mut self, timeline: u32) -> Result<Vec<u8>, Trouble> {
        let rows = self.connection.query(&format!("TIMELINE_HISTORY {timeline}"))?;
        let content = rows.iter().next().and_then(|row| row.bytes(1)).map(<[u8]>::to_vec);
        Ok(content.ok_or_else(|| unknown("where its timeline came from"))?)
    }

    /// Streams a timeline from a position on, held by a slot.
    pub fn stream(&mut self, slot: &str, from: Lsn, timeline: u32) -> Result<Streamed<'_>, Trouble> {
        let slot = quote_ident(slot);
        let command = format!("START_REPLICATION SLOT {slot} PHYSICAL {from} TIMELINE {timeline}");
        match self.connection.copy_both(&command)? {
            Begun::Streaming(both) => Ok(Streamed::Log(LogStream::new(both))),
            Begun::Rows(rows) => Ok(Streamed::Nothing(super::stream::next_timeline(&rows)?)),
        }
    }
}

pub(super) fn lsn(text: &str) -> Result<Lsn> {
    text.parse().map_err(|error| Failure::failed("the server names an unknown position").caused_by(error))
}

fn unknown(what: &str) -> Failure {
    Failure::failed(format!("the server does not say {what}"))
        .hint("Give the address of the server itself, not of a pooler: those speak no replication protocol.")
}
