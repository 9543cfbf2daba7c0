//! The ways back: a file that a server starts on, and keys loaded into a server that lives.
//!
//! Neither overwrites anything. A file goes into a folder that has none; keys go into an empty database, or under a prefix that
//! no key has yet. A live server is loaded through a throw-away one: it reads the file, and DUMP and RESTORE carry each key
//! across, with its lifetime.

use super::{
    KEYS, RDB,
    address::Address,
    client::{Client, Value},
    error::RedisError,
    facts::{Form, RedisFacts},
    keys::{self, scan},
    rdb::Check,
    sandbox::{Sandbox, program},
};
use mainstay_domain::{
    Failure, Kind, Monitor, Result,
    point::{SourceRecord, Stream},
    stream::Vault,
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    thread,
};

/// The name that a server looks for, unless it is configured otherwise.
pub const DUMP: &str = "dump.rdb";
/// Keys whose requests are under way at a time.
const BATCH: usize = 64;

/// Where a restore puts files, and which program it may start.
#[derive(Debug, Clone)]
pub struct Options {
    /// A folder, made if it is not there.
    pub destination: PathBuf,
    /// The server's program, where it is configured.
    pub server: Option<PathBuf>,
}

/// What a restore to a folder will do.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Plan {
    pub dump: PathBuf,
    /// The folder of an append-only file, where the captured server keeps one: it would ignore the dump.
    pub append_only: Option<PathBuf>,
    pub bytes: u64,
    pub keys: Option<u64>,
    /// What stands against it.
    pub obstacles: Vec<String>,
}

pub fn plan(record: &SourceRecord, options: &Options) -> Result<Plan> {
    let facts = RedisFacts::from_json(&record.facts)?;
    let stream = stream_of(record, &facts)?;
    let dump = options.destination.join(DUMP);
    let append_only = append_directory(&facts).map(|name| options.destination.join(name));
    let mut obstacles = Vec::new();
    for path in [Some(&dump), append_only.as_ref()].into_iter().flatten() {
        if fs::symlink_metadata(path).is_ok() {
            obstacles.push(format!("{} is there already", path.display()));
        }
    }
    if facts.form == Form::Keys
        && let Err(failure) = program(options.server.as_deref())
    {
        obstacles.push(format!("what was read key by key is put together by a server, and {failure}"));
    }
    Ok(Plan {
        dump,
        append_only,
        bytes: stream.content.bytes(),
        keys: facts.census.map(|census| census.keys()),
        obstacles,
    })
}

/// The folder that a server with `appendonly yes` loads instead of the dump; since version 7 it can be made from one. Its name
/// comes from a recovery point: anything but a plain name is not taken.
fn append_directory(facts: &RedisFacts) -> Option<String> {
    let made = facts.persistence.append_only && facts.major() >= 7;
    let plain = |name: &String| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
    let given = facts.persistence.append_directory.clone().filter(plain);
    made.then(|| given.unwrap_or_else(|| "appendonlydir".to_owned()))
}

fn append_file(facts: &RedisFacts) -> String {
    let plain = |name: &String| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
    };
    facts.persistence.append_file.clone().filter(plain).unwrap_or_else(|| "appendonly.aof".to_owned())
}

/// Writes the files of the plan.
///
/// # Errors
/// `Preflight` for an obstacle, `Verification` if what was captured is damaged; then nothing is left behind.
pub fn to_directory(
    vault: &dyn Vault,
    record: &SourceRecord,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Plan> {
    let plan = plan(record, options)?;
    if !plan.obstacles.is_empty() {
        return Err(Failure::preflight(plan.obstacles.join("; "))
            .hint("Nothing was restored. Name an empty folder; a restore overwrites nothing."));
    }
    let facts = RedisFacts::from_json(&record.facts)?;
    let unwritten = |error: io::Error| {
        Failure::failed(format!("{} cannot be written", options.destination.display())).caused_by(error)
    };
    fs::create_dir_all(&options.destination).map_err(unwritten)?;
    let written =
        tempfile::Builder::new().prefix(".dump.rdb.").tempfile_in(&options.destination).map_err(unwritten)?;
    dump_to(vault, record, options.server.as_deref(), written.path(), monitor)?;
    written.as_file().sync_all().map_err(unwritten)?;
    written.persist_noclobber(&plan.dump).map_err(|error| unwritten(error.error))?;
    if let Some(folder) = &plan.append_only {
        write_append_only(&plan.dump, folder, &append_file(&facts)).map_err(unwritten)?;
    }
    fs::File::open(&options.destination).and_then(|folder| folder.sync_all()).map_err(unwritten)?;
    Ok(plan)
}

/// An append-only file in several parts that consists of its base alone (Redis 7, `aof.c`, *AOF manifest*).
fn write_append_only(dump: &Path, folder: &Path, name: &str) -> io::Result<()> {
    fs::create_dir(folder)?;
    let base = format!("{name}.1.base.rdb");
    if fs::hard_link(dump, folder.join(&base)).is_err() {
        fs::copy(dump, folder.join(&base))?;
    }
    let mut manifest = fs::File::create_new(folder.join(format!("{name}.manifest")))?;
    manifest.write_all(format!("file {base} seq 1 type b\n").as_bytes())?;
    manifest.sync_all()?;
    fs::File::open(folder)?.sync_all()
}

fn stream_of<'r>(record: &'r SourceRecord, facts: &RedisFacts) -> Result<&'r Stream> {
    let name = match facts.form {
        Form::Rdb => RDB,
        Form::Keys => KEYS,
    };
    record.stream(name).ok_or_else(|| Failure::verification(format!("the record has no stream {name}")))
}

/// Writes an RDB file of what was captured to a path, whichever form it has, and checks it on the way.
pub fn dump_to(
    vault: &dyn Vault,
    record: &SourceRecord,
    server: Option<&Path>,
    path: &Path,
    monitor: &dyn Monitor,
) -> Result<()> {
    let facts = RedisFacts::from_json(&record.facts)?;
    let unwritten =
        |error: io::Error| Failure::failed(format!("{} cannot be written", path.display())).caused_by(error);
    match facts.form {
        Form::Rdb => {
            let file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(path)
                .map_err(unwritten)?;
            let mut out = Checked { out: BufWriter::new(file), check: Check::new(), monitor };
            vault.copy(&stream_of(record, &facts)?.content, &mut out)?;
            out.out.flush().map_err(unwritten)?;
            out.check.finish().map(drop).map_err(|error| {
                Failure::verification(format!("the captured RDB file is not whole: {error}"))
            })
        }
        Form::Keys => {
            let sandbox = from_keys(vault, record, &program(server)?, monitor)?;
            let mut client = sandbox.connect()?;
            client.ask(&["SAVE"])?;
            fs::copy(sandbox.directory().join(DUMP), path).map(drop).map_err(unwritten)
        }
    }
}

/// Writes, checks, and stops when it shall.
struct Checked<'a, W> {
    out: W,
    check: Check,
    monitor: &'a dyn Monitor,
}

impl<W: Write> Write for Checked<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.monitor.cancelled() {
            return Err(io::Error::other("stopped"));
        }
        let written = self.out.write(bytes)?;
        self.check.update(&bytes[..written]);
        self.monitor.advance(0, written as u64);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A throw-away server that holds what was captured.
pub fn sandbox(
    vault: &dyn Vault,
    record: &SourceRecord,
    server: Option<&Path>,
    monitor: &dyn Monitor,
) -> Result<Sandbox> {
    let program = program(server)?;
    match RedisFacts::from_json(&record.facts)?.form {
        Form::Rdb => Sandbox::start_on(&program, &mut |path| dump_to(vault, record, server, path, monitor)),
        Form::Keys => from_keys(vault, record, &program, monitor),
    }
}

fn from_keys(
    vault: &dyn Vault,
    record: &SourceRecord,
    program: &Path,
    monitor: &dyn Monitor,
) -> Result<Sandbox> {
    let sandbox = Sandbox::start_on(program, &mut |_| Ok(()))?;
    let mut client = sandbox.connect()?;
    let mut load = Load::new(&mut client, monitor);
    each_record(vault, record, &mut |record| {
        let lifetime = record.expires.map_or(Lifetime::Endless, Lifetime::Until);
        load.put(record.database, &record.key, lifetime, &record.dump, true)
    })?;
    load.finish()?;
    Ok(sandbox)
}

/// Calls `visit` with each record of the stream `keys`.
pub(super) fn each_record(
    vault: &dyn Vault,
    record: &SourceRecord,
    visit: &mut dyn FnMut(keys::Record) -> Result<()>,
) -> Result<()> {
    let facts = RedisFacts::from_json(&record.facts)?;
    let content = &stream_of(record, &facts)?.content;
    let (reader, mut writer) =
        io::pipe().map_err(|error| Failure::failed("no pipe could be made").caused_by(error))?;
    thread::scope(|scope| {
        let copying = scope.spawn(move || vault.copy(content, &mut writer));
        let mut reader = BufReader::with_capacity(256 << 10, reader);
        let decoded = loop {
            match keys::decode(&mut reader) {
                Ok(Some(record)) => {
                    if let Err(failure) = visit(record) {
                        break Err(failure);
                    }
                }
                Ok(None) => break Ok(()),
                Err(failure) => break Err(failure),
            }
        };
        drop(reader); // the copy ends, if it has not
        let copied = copying.join().unwrap_or_else(|_| Err(Failure::failed("a reading thread panicked")));
        match (copied, decoded) {
            // Damage in the repository is why the records end early.
            (Err(failure), Err(_)) if failure.kind == Kind::Verification => Err(failure),
            (_, Err(failure)) => Err(failure),
            (copied, Ok(())) => copied.map(drop),
        }
    })
}

/// How long a key lives on, in milliseconds. RESTORE takes 0 for endless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    Endless,
    /// Since 1970.
    Until(u64),
    /// From now on, by whatever clock the server has.
    For(u64),
}

/// RESTORE commands on their way.
struct Load<'c> {
    client: &'c mut Client,
    monitor: &'c dyn Monitor,
    database: Option<u32>,
    /// Keys of commands that have no answer yet.
    open: Vec<Vec<u8>>,
    loaded: u64,
}

impl<'c> Load<'c> {
    fn new(client: &'c mut Client, monitor: &'c dyn Monitor) -> Load<'c> {
        Load { client, monitor, database: None, open: Vec::new(), loaded: 0 }
    }

    fn put(
        &mut self,
        database: u32,
        key: &[u8],
        lifetime: Lifetime,
        dump: &[u8],
        replace: bool,
    ) -> Result<()> {
        if self.database != Some(database) {
            self.settle()?;
            self.client.select(database)?;
            self.database = Some(database);
        }
        let number = match lifetime {
            Lifetime::Endless => 0,
            Lifetime::Until(at) => at.max(1),
            Lifetime::For(left) => left.max(1),
        };
        let number = number.to_string();
        let mut words = vec![b"RESTORE", key, number.as_bytes(), dump];
        if matches!(lifetime, Lifetime::Until(_)) {
            words.push(b"ABSTTL");
        }
        if replace {
            words.push(b"REPLACE");
        }
        self.client.send(&words)?;
        self.monitor.advance(1, dump.len() as u64);
        self.open.push(key.to_vec());
        if self.open.len() >= BATCH { self.settle() } else { Ok(()) }
    }

    fn settle(&mut self) -> Result<()> {
        self.client.flush()?;
        let mut first = None;
        for key in self.open.drain(..) {
            match self.client.receive()? {
                Value::Error(message) => {
                    let error = RedisError::Refused { command: "RESTORE".to_owned(), message };
                    let named = String::from_utf8_lossy(&key).into_owned();
                    first.get_or_insert_with(|| Failure::from(error).during(format_args!("key {named:?}")));
                }
                _ => self.loaded += 1,
            }
        }
        if self.monitor.cancelled() {
            return Err(Failure::new(Kind::Cancelled, "loading the keys was stopped")
                .hint("What was loaded by then is there."));
        }
        first.map_or(Ok(()), Err)
    }

    fn finish(mut self) -> Result<u64> {
        self.settle().map(|()| self.loaded)
    }
}

/// Loading into a server that lives.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    /// Put before each key's name. Without one, the databases that are loaded into must be empty.
    pub prefix: Vec<u8>,
    /// The captured database to load; by default all that have keys.
    pub database: Option<u32>,
    /// The throw-away server's program, where it is configured.
    pub server: Option<PathBuf>,
}

/// Which database goes where.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LivePlan {
    pub server: String,
    /// Captured database to database of the live server, with the number of keys where it is known.
    pub databases: Vec<(u32, u32, Option<u64>)>,
    pub obstacles: Vec<String>,
    pub notices: Vec<String>,
}

/// Looks at the live server, and changes nothing.
pub fn plan_live(record: &SourceRecord, target: &Address, options: &LiveOptions) -> Result<LivePlan> {
    let facts = RedisFacts::from_json(&record.facts)?;
    let counts: BTreeMap<u32, u64> = facts
        .census
        .iter()
        .flat_map(|census| census.databases.iter().map(|(number, count)| (*number, count.keys)))
        .filter(|(number, _)| options.database.is_none_or(|wanted| wanted == *number))
        .collect();
    let mut databases: Vec<(u32, u32, Option<u64>)> =
        counts.iter().map(|(number, keys)| (*number, *number, Some(*keys))).collect();
    if facts.census.is_none() {
        let only = options.database.unwrap_or(0);
        databases = vec![(only, only, None)];
    }
    let mut obstacles = Vec::new();
    match (target.database, databases.as_mut_slice()) {
        (Some(number), [one]) => one.1 = number,
        (Some(_), [_, _, ..]) => obstacles.push(
            "the address names one database, and keys of several were captured: say which with --from-database".to_owned(),
        ),
        (_, []) => obstacles.push("the recovery point has no keys there".to_owned()),
        (None, _) => {}
    }
    let mut client = Client::connect(target)?;
    for (_, into, _) in &databases {
        client.select(*into)?;
        if options.prefix.is_empty() {
            let there = client.ask(&["DBSIZE"])?.integer().unwrap_or(0);
            if there > 0 {
                obstacles.push(format!("database {into} is not empty: it has {there} keys"));
            }
        } else if let Some(key) = first_with(&mut client, &options.prefix)? {
            let key = String::from_utf8_lossy(&key).into_owned();
            obstacles.push(format!("database {into} has a key with this prefix already: {key:?}"));
        }
    }
    let mut notices = Vec::new();
    if facts.functions > 0 {
        let what = "libraries of functions are not loaded into a living server; a restore to a folder brings them back";
        notices.push(what.to_owned());
    }
    Ok(LivePlan { server: target.describe(), databases, obstacles, notices })
}

/// A key that begins so, if there is one.
fn first_with(client: &mut Client, prefix: &[u8]) -> Result<Option<Vec<u8>>, RedisError> {
    let mut pattern = Vec::new();
    for byte in prefix {
        if b"*?[]\\^".contains(byte) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern.push(b'*');
    let mut cursor = b"0".to_vec();
    loop {
        let (mut keys, next) = scan(client, &cursor, Some(&pattern))?;
        if let Some(key) = keys.pop() {
            return Ok(Some(key));
        }
        if next == b"0" {
            return Ok(None);
        }
        cursor = next;
    }
}

/// Loads the keys of the plan; returns how many.
///
/// # Errors
/// `Preflight` for an obstacle, before anything is loaded; a key that the server refuses ends it, and what was loaded is there.
pub fn to_server(
    vault: &dyn Vault,
    record: &SourceRecord,
    target: &Address,
    options: &LiveOptions,
    monitor: &dyn Monitor,
) -> Result<u64> {
    let plan = plan_live(record, target, options)?;
    if !plan.obstacles.is_empty() {
        return Err(Failure::preflight(plan.obstacles.join("; ")).hint(
            "Nothing was loaded. Load into an empty database, or under a prefix: --key-prefix restored:",
        ));
    }
    let sandbox = sandbox(vault, record, options.server.as_deref(), monitor)?;
    let mut from = sandbox.connect()?;
    let mut into = Client::connect(target)?;
    let mut load = Load::new(&mut into, monitor);
    for (captured, number, _) in plan.databases {
        from.select(captured)?;
        let mut cursor = b"0".to_vec();
        loop {
            let (keys, next) = scan(&mut from, &cursor, None)?;
            for key in keys {
                let (dump, left) = (from.command(&[b"DUMP", &key])?, from.command(&[b"PTTL", &key])?);
                let (dump, lifetime) = match (dump, left) {
                    (Value::Bulk(dump), Value::Integer(-1)) => (dump, Lifetime::Endless),
                    (Value::Bulk(dump), Value::Integer(left @ 0..)) => {
                        (dump, Lifetime::For(left.unsigned_abs()))
                    }
                    _ => continue, // it expired since the scan came upon it
                };
                let name = [&options.prefix[..], &key].concat();
                load.put(number, &name, lifetime, &dump, false)?;
            }
            if next == b"0" {
                break;
            }
            cursor = next;
        }
    }
    load.finish()
}

/// Reads a file that a restore wrote; for comparing it.
pub(super) fn open(path: &Path) -> Result<BufReader<fs::File>> {
    fs::File::open(path)
        .map(|file| BufReader::with_capacity(256 << 10, file))
        .map_err(|error| Failure::failed(format!("{} cannot be read", path.display())).caused_by(error))
}
