//! Captures the files, and then each table under a snapshot of its own.

use super::{
    KIND, TABLE,
    config::{ConfigurationConfig, Table},
    facts::{TableFact, with_tables},
};
use crate::{
    files::{self, CaptureOptions},
    postgres::{
        session,
        wire::{Connection, WireError},
    },
};
use mainstay_domain::{
    Failure, Kind, Monitor, Result, Severity,
    point::{Problem, SourceRecord, State, Stream},
    stream::{Content, MAX_CHUNK, Marks, Pool, Sink, Vault},
};

/// Rows are gathered into pieces of about this many bytes.
const PIECE: usize = 256 << 10;

/// Captures a configuration under `name`. A table that cannot be read is a problem of the record, and leaves it incomplete.
pub fn capture(
    name: &str,
    config: &ConfigurationConfig,
    sink: &dyn Sink,
    previous: Option<(&dyn Vault, &SourceRecord)>,
    options: &CaptureOptions<'_>,
    monitor: &dyn Monitor,
) -> Result<SourceRecord> {
    config.validate()?;
    let started = options.clock.now();
    let mut record = if config.files.is_empty() {
        SourceRecord {
            name: name.to_owned(),
            kind: KIND.into(),
            state: State::Complete,
            started,
            finished: started,
            consistent_at: None,
            streams: Vec::new(),
            facts: String::new(),
            problems: Vec::new(),
            bytes: 0,
            items: 0,
            partial: false,
        }
    } else {
        let previous = previous.filter(|(_, record)| record.stream(files::LISTING).is_some());
        files::capture(name, &config.of_files(), sink, previous, options, monitor)?
    };
    let mut tables = Vec::new();
    for table in &config.tables {
        let name = table.name()?;
        match export(table, sink, monitor) {
            Ok((content, rows)) => {
                tables.push(TableFact {
                    name: name.clone(),
                    rows,
                    bytes: content.bytes(),
                    table: table.table.clone(),
                });
                record.bytes += content.bytes();
                record.items += rows;
                record.streams.push(Stream { name: format!("{TABLE}{name}"), content });
            }
            Err(failure) if matches!(failure.kind, Kind::Cancelled) => return Err(failure),
            Err(failure) => {
                let mut message = failure.message.clone();
                if let Some(hint) = &failure.hint {
                    message = format!("{message}. {hint}");
                }
                record.problems.push(Problem { severity: Severity::Error, object: name, message });
            }
        }
    }
    let lost = tables.len() < config.tables.len();
    record.state = match (record.state, lost, record.streams.is_empty()) {
        (_, true, true) => State::Failed,
        (State::Complete, true, false) => State::Incomplete,
        (state, ..) => state,
    };
    record.kind = KIND.into();
    record.facts = with_tables(&record.facts, &tables);
    record.finished = options.clock.now();
    Ok(record)
}

/// Streams one table; returns where it lies and how many rows it has.
fn export(table: &Table, sink: &dyn Sink, monitor: &dyn Monitor) -> Result<(Content, u64)> {
    let mut connection = Connection::connect(&table.connect_spec()?)?;
    session::prepare(&mut connection)?;
    if table.query.is_some() {
        connection.execute("RESET search_path")?; // its author thinks of the usual one
    }
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")?;
    // JSON has no control characters of its own: with these for quotes and separators, a row is its line.
    let sql = format!(
        "COPY ({}) TO STDOUT (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02', ENCODING 'UTF8')",
        table.statement()?
    );
    let mut writer = sink.begin(Pool::Data);
    let (mut piece, mut rows) = (Vec::new(), 0);
    let copied = connection.copy_out(&sql, |bytes, ends| {
        if monitor.cancelled() {
            return Err(Failure::new(Kind::Cancelled, "reading a table was stopped"));
        }
        if piece.len() + bytes.len() > MAX_CHUNK {
            return Err(Failure::failed("it has a row of more than 8 MiB, which is no setting")
                .hint("Capture such a table as a source of kind postgres."));
        }
        piece.extend_from_slice(bytes);
        rows += u64::from(ends);
        monitor.advance(u64::from(ends), bytes.len() as u64);
        if ends && piece.len() >= PIECE {
            let marks = Marks { rows: std::mem::take(&mut rows), ..Marks::default() };
            writer.piece(&std::mem::take(&mut piece), marks)?;
        }
        Ok(())
    });
    let total = copied.map_err(|error| match error {
        WireError::Caller(failure) => failure,
        error => error.into(),
    })?;
    if !piece.is_empty() {
        writer.piece(&piece, Marks { rows, ..Marks::default() })?;
    }
    Ok((writer.finish()?, total))
}
