//! Where a key comes from: an environment variable, a file, a command, or a passphrase from one of these.
//!
//! The configuration names the place and never holds the key itself. What is read is wiped from memory when it is no longer
//! needed, and no error shows it.

use crate::secret::Secret;
use mainstay_domain::{Failure, Kind};
use rustix::fs::OFlags;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::{
    ffi::OsString,
    fmt,
    fs::OpenOptions,
    io::{self, Read},
    os::unix::{
        ffi::OsStringExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};
use zeroize::Zeroizing;

/// The most that a place may hold, in bytes: far more than any key or passphrase.
const LIMIT: usize = 4096;
/// How much of a failed command's complaint is shown, in bytes.
const COMPLAINT: usize = 2048;

/// Where a repository's key comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeySpec {
    /// Not a key but a passphrase, of any length.
    Passphrase(Place),
    /// 64 hexadecimal digits, or base64 of 32 bytes.
    #[serde(untagged)]
    Key(Place),
}

/// A place that holds a secret text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The name of an environment variable.
    Env(String),
    /// The path of a file that others than its owner and group cannot use.
    File(PathBuf),
    /// A command that writes it to its standard output.
    Command(CommandLine),
}

/// A command: a text for the shell (`sh -c`), or a program and its arguments for no shell at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum CommandLine {
    Shell(String),
    Program(Vec<String>),
}

/// Why there is no key. None of them tells anything of what was read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the environment variable {name} is not set")]
    NoVariable { name: String },
    #[error("{} could not be read", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} can be used by everybody on this machine (mode {mode:04o})", .path.display())]
    OpenToOthers { path: PathBuf, mode: u32 },
    #[error("{program} could not be started")]
    NotStarted { program: String, source: io::Error },
    #[error("{program} gave no key: {status}{complaint}")]
    CommandFailed { program: String, status: ExitStatus, complaint: String },
    #[error("{place} holds more than {LIMIT} bytes, which is neither a key nor a passphrase")]
    TooLong { place: String },
    #[error("{place} is empty")]
    Empty { place: String },
    #[error("{place} holds no key ({found})")]
    Malformed { place: String, found: String },
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Failure {
        let (kind, hint) = match &error {
            KeyError::NoVariable { name } => (
                Kind::Usage,
                format!("Set it to the repository's key. For a new repository, make one with `mainstay key generate`; {name} \
                         must be there in scheduled runs, too."),
            ),
            KeyError::Unreadable { .. } => (
                Kind::Usage,
                "Check the path, and that this user may read it. For a new repository, make a key with `mainstay key generate \
                 --output FILE`."
                    .to_owned(),
            ),
            KeyError::OpenToOthers { path, .. } => {
                (Kind::Usage, format!("Take that right away: chmod 600 {}", path.display()))
            }
            KeyError::NotStarted { .. } => (Kind::Usage, "Check that it is installed and that this user may run it.".to_owned()),
            KeyError::CommandFailed { .. } => {
                (Kind::Failed, "Run the command by hand to see what it needs; it must write the key to its standard output.".to_owned())
            }
            KeyError::TooLong { .. } | KeyError::Malformed { .. } => (
                Kind::Usage,
                "A key is 64 hexadecimal digits, or 32 bytes in base64. `mainstay key generate` makes one; a passphrase is \
                 configured as `key: { passphrase: … }`."
                    .to_owned(),
            ),
            KeyError::Empty { .. } => (Kind::Usage, "Put the key there; `mainstay key generate` makes a new one.".to_owned()),
        };
        let message = error.to_string();
        let failure = Failure::new(kind, message).hint(hint);
        match error {
            KeyError::Unreadable { source, .. } | KeyError::NotStarted { source, .. } => {
                failure.caused_by(source)
            }
            _ => failure,
        }
    }
}

impl KeySpec {
    /// Fetches the key or passphrase.
    pub fn read(&self) -> Result<Secret, KeyError> {
        self.read_with(&|name| std::env::var_os(name))
    }

    /// The same, with the environment handed in.
    pub fn read_with(&self, environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Secret, KeyError> {
        let place = match self {
            KeySpec::Key(place) => place,
            KeySpec::Passphrase(place) => {
                let text = place.read_with(environment)?;
                return Ok(Secret::Passphrase(text.to_vec()));
            }
        };
        let text = place.read_with(environment)?;
        std::str::from_utf8(&text).ok().and_then(Secret::parse_key).ok_or_else(|| KeyError::Malformed {
            place: place.to_string(),
            found: match text.len() {
                64 => "64 characters that are not all hexadecimal digits".to_owned(),
                length => format!("{length} characters"),
            },
        })
    }
}

impl Place {
    /// What lies there, without one newline at its end.
    fn read_with(
        &self,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let mut text = match self {
            Place::Env(name) => {
                let value = environment(name).ok_or_else(|| KeyError::NoVariable { name: name.clone() })?;
                Zeroizing::new(value.into_vec())
            }
            Place::File(path) => {
                // A FIFO that a shell made (`<(pass show backup)`) is read like a file.
                let opened =
                    OpenOptions::new().read(true).custom_flags(OFlags::NOCTTY.bits() as i32).open(path);
                let unreadable = |source| KeyError::Unreadable { path: path.clone(), source };
                let file = opened.map_err(unreadable)?;
                let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
                if mode & 0o007 != 0 {
                    return Err(KeyError::OpenToOthers { path: path.clone(), mode });
                }
                read_limited(file).map_err(unreadable)?
            }
            Place::Command(command) => command.output()?,
        };
        let newline =
            [&b"\r\n"[..], b"\n"].into_iter().find(|end| text.ends_with(end)).map_or(0, <[u8]>::len);
        let length = text.len() - newline;
        text.truncate(length);
        match text.len() {
            0 => Err(KeyError::Empty { place: self.to_string() }),
            length if length > LIMIT => Err(KeyError::TooLong { place: self.to_string() }),
            _ => Ok(text),
        }
    }
}

/// Up to a little more than the limit, so that too much is noticed; into one allocation, so that no copy stays behind.
fn read_limited(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let most = LIMIT + 3;
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 64));
    from.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl CommandLine {
    /// What it writes to its standard output. Its standard input is empty.
    fn output(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let program = self.to_string();
        let not_started = |source| KeyError::NotStarted { program: program.clone(), source };
        let mut command = match self {
            CommandLine::Shell(text) => {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", text]);
                command
            }
            CommandLine::Program(words) => {
                let (program, arguments) =
                    words.split_first().ok_or_else(|| not_started(io::ErrorKind::InvalidInput.into()))?;
                let mut command = Command::new(program);
                command.args(arguments);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(not_started)?;
        let (output, complaint) = collect(&mut child);
        let status = child.wait().map_err(not_started)?;
        let output = output.map_err(not_started)?;
        if output.len() > LIMIT + 2 {
            return Err(KeyError::TooLong { place: program });
        }
        if !status.success() {
            return Err(KeyError::CommandFailed { program, status, complaint });
        }
        Ok(output)
    }
}

/// Reads both pipes at once, neither without limit; a child that writes on and on finds its pipe closed.
fn collect(child: &mut Child) -> (io::Result<Zeroizing<Vec<u8>>>, String) {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let complaint = scope.spawn(|| {
            let mut bytes = Vec::new();
            if let Some(mut stderr) = stderr {
                let _ = stderr.by_ref().take(COMPLAINT as u64).read_to_end(&mut bytes);
                let _ = io::copy(&mut stderr, &mut io::sink());
            }
            readable(&bytes)
        });
        let output = stdout.map_or_else(|| Ok(Zeroizing::default()), read_limited);
        (output, complaint.join().unwrap_or_default())
    })
}

/// A complaint as part of an error message: `: text` on one line, without control characters; nothing if it is empty.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text: String = lines.join("; ").chars().filter(|c| !c.is_control()).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Env(name) => write!(f, "the environment variable {name}"),
            Place::File(path) => write!(f, "{}", path.display()),
            Place::Command(command) => command.fmt(f),
        }
    }
}

impl fmt::Display for CommandLine {
    /// Only the program's name: its arguments may be nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = match self {
            CommandLine::Shell(text) => text.split_whitespace().next(),
            CommandLine::Program(words) => words.first().map(String::as_str),
        };
        write!(f, "the command `{} …`", program.unwrap_or_default())
    }
}

/// Somebody wrote a key or passphrase into the configuration. The usual error would show it.
const WRITTEN_OUT: &str = "the secret itself does not belong here; name the place that holds it: { env: NAME }, \
                           { file: PATH } or { command: … }";

impl<'de> Deserialize<'de> for KeySpec {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(SpecVisitor { places: &["env", "file", "command", "passphrase"] })
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match d.deserialize_any(SpecVisitor { places: &["env", "file", "command"] })? {
            KeySpec::Key(place) | KeySpec::Passphrase(place) => Ok(place),
        }
    }
}

/// Takes a map with exactly one of the keys `places`.
struct SpecVisitor {
    places: &'static [&'static str],
}

impl<'de> de::Visitor<'de> for SpecVisitor {
    type Value = KeySpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exactly one of {}", self.places.join(", "))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<KeySpec, A::Error> {
        let place = map.next_key::<String>()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
        let spec = match place.as_str() {
            "env" => KeySpec::Key(Place::Env(map.next_value()?)),
            "file" => KeySpec::Key(Place::File(map.next_value()?)),
            "command" => KeySpec::Key(Place::Command(map.next_value()?)),
            "passphrase" if self.places.contains(&"passphrase") => KeySpec::Passphrase(map.next_value()?),
            other => return Err(de::Error::unknown_field(other, self.places)),
        };
        match map.next_key::<de::IgnoredAny>()? {
            None => Ok(spec),
            Some(_) => Err(de::Error::invalid_length(2, &self)),
        }
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<KeySpec, E> {
        Err(E::custom(WRITTEN_OUT))
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<KeySpec, E> {
        Err(E::custom(WRITTEN_OUT))
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<KeySpec, E> {
        Err(E::custom(WRITTEN_OUT))
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<KeySpec, E> {
        Err(E::custom(WRITTEN_OUT))
    }
}

impl<'de> Deserialize<'de> for CommandLine {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = CommandLine;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text for the shell, or a list of a program and its arguments")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<CommandLine, E> {
                match text.trim() {
                    "" => Err(E::custom("the command is empty")),
                    text => Ok(CommandLine::Shell(text.to_owned())),
                }
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<CommandLine, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = seq.next_element()? {
                    words.push(word);
                }
                if words.first().is_none_or(String::is_empty) {
                    return Err(de::Error::custom("the command is empty"));
                }
                Ok(CommandLine::Program(words))
            }
        }
        d.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests;
