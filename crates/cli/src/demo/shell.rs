//! Runs this binary as a user would, in the demo's folder, and shows what is typed.

use console::style;
use mainstay_domain::{Failure, Result};
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

pub struct Shell {
    program: PathBuf,
    folder: PathBuf,
    /// What the application's environment holds.
    environment: Vec<(&'static str, String)>,
}

impl Shell {
    pub fn new(folder: &Path, environment: Vec<(&'static str, String)>) -> Result<Shell> {
        Ok(Shell { program: own_program()?, folder: folder.to_owned(), environment })
    }

    /// The `archive_command` of a server that is to archive here.
    pub fn archive_command(&self) -> String {
        format!(
            "env MAINSTAY_CACHE={} {} --config {} --quiet wal push %p",
            self.cache().display(),
            self.program.display(),
            self.folder.join("mainstay.yaml").display()
        )
    }

    fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }

    pub fn title(&self, text: &str) {
        self.say(&format!("\n{}", style(format!("── {text}")).bold().cyan()));
    }

    pub fn say(&self, text: &str) {
        drop(writeln!(std::io::stdout().lock(), "{text}"));
    }

    /// Shows the command and runs it. Any end but a good one ends the demo.
    pub fn run(&self, arguments: &[&str]) -> Result<()> {
        let typed: Vec<_> = arguments.iter().map(|word| quoted(word)).collect();
        self.say(&format!(
            "\n{} {}",
            style("$").dim(),
            style(format!("mainstay {}", typed.join(" "))).bold()
        ));
        let status = Command::new(&self.program)
            .args(arguments)
            .current_dir(&self.folder)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("MAINSTAY_CACHE", self.cache())
            .env_remove("MAINSTAY_CONFIG")
            .status()
            .map_err(|error| Failure::failed("the demo cannot run its own program").caused_by(error))?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::failed(format!("mainstay {} ended with {status}", typed.join(" "))))
    }
}

pub fn own_program() -> Result<PathBuf> {
    std::env::current_exe()
        .map_err(|error| Failure::failed("the demo cannot find its own program").caused_by(error))
}

/// As one would type it for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{word}'") }
}
