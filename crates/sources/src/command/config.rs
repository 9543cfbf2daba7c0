//! How a command is configured as a source, and how one is started.

use mainstay_domain::{ByteSize, Failure, time::Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, os::unix::process::CommandExt, process::Command};

/// A command: a text for the shell (`sh -c`), or a program and its arguments for no shell at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CommandLine {
    Shell(String),
    Program(Vec<String>),
}

/// The standard output of a command.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandConfig {
    /// The command: ["pg_dumpall", "--globals-only"], or a text for the shell. It sees the environment, without what belongs to
    /// Mainstay (MAINSTAY_*); secrets belong there, and not into its arguments.
    pub run: CommandLine,
    /// The name of the file that a restore makes of it.
    #[serde(default = "default_name")]
    pub name: String,
    /// How long it may take; then it is ended, and the source has failed.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// It must write at least this much: a dump of nothing is a failure.
    #[serde(default = "one_byte")]
    pub min_size: ByteSize,
    /// It may write at most this much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<ByteSize>,
}

fn default_name() -> String {
    "output".to_owned()
}
fn default_timeout() -> Span {
    Span { nanoseconds: mainstay_domain::time::HOUR }
}
fn one_byte() -> ByteSize {
    ByteSize(1)
}

impl CommandConfig {
    pub fn new(run: CommandLine) -> CommandConfig {
        CommandConfig {
            run,
            name: default_name(),
            timeout: default_timeout(),
            min_size: one_byte(),
            max_size: None,
        }
    }

    /// What can be said to be wrong without running anything.
    pub fn validate(&self) -> Result<(), Failure> {
        let empty = match &self.run {
            CommandLine::Shell(text) => text.trim().is_empty(),
            CommandLine::Program(words) => words.first().is_none_or(String::is_empty),
        };
        if empty {
            return Err(Failure::usage("run names no command"));
        }
        if !is_file_name(&self.name) {
            return Err(Failure::usage(format!("name {:?} is no name of a file", self.name))
                .hint("Write a name without folders, such as globals.sql."));
        }
        if self.timeout.nanoseconds <= 0 {
            return Err(Failure::usage("timeout is no length of time"));
        }
        match self.max_size {
            Some(most) if most < self.min_size => {
                Err(Failure::usage(format!("max_size {most} is less than min_size {}", self.min_size)))
            }
            _ => Ok(()),
        }
    }
}

/// Whether it names a file in a folder, and nothing elsewhere.
pub(super) fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && !name.contains(['/', '\0'])
}

impl CommandLine {
    /// Ready to be started, in a process group of its own, without what belongs to Mainstay in its environment.
    pub(super) fn prepare(&self) -> Command {
        let mut command = match self {
            CommandLine::Shell(text) => {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", text]);
                command
            }
            CommandLine::Program(words) => {
                let mut command = Command::new(words.first().map_or("", String::as_str));
                command.args(words.iter().skip(1));
                command
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MAINSTAY_") {
                command.env_remove(name);
            }
        }
        command.process_group(0);
        command
    }
}

impl fmt::Display for CommandLine {
    /// The program alone: arguments may be anybody's secrets, and so may what the shell is told to set before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandLine::Program(words) => f.write_str(words.first().map_or("", String::as_str)),
            CommandLine::Shell(text) => {
                let first = text.split_whitespace().next().unwrap_or("").trim_end_matches([';', '|', '&']);
                let is_name = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+');
                match (
                    first.chars().all(is_name) && !first.is_empty(),
                    text.contains([';', '|', '&', '\n', '`', '(']),
                ) {
                    (true, false) => f.write_str(first),
                    (true, true) => write!(f, "the shell command that begins with {first}"),
                    (false, _) => f.write_str("the shell command"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_named_without_what_it_is_told() {
        let shell = |text: &str| CommandLine::Shell(text.to_owned()).to_string();
        assert_eq!(shell("pg_dumpall --globals-only"), "pg_dumpall");
        assert_eq!(shell("echo one; tool --password x"), "the shell command that begins with echo");
        assert_eq!(shell("PASSWORD=hunter2 tool"), "the shell command");
        assert_eq!(CommandLine::Program(vec!["/bin/echo".into(), "hunter2".into()]).to_string(), "/bin/echo");
    }
}
