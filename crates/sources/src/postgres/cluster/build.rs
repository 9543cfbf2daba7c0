//! What of a server's build its files depend on: the sizes of pages, and the machine. A server that was built otherwise cannot use them,
//! and a reader that takes one page size for another reads nonsense: so both are looked at first.

use super::ClusterFacts;
use mainstay_domain::{Failure, Result, stream::PAGE};
use std::env::consts::ARCH;

/// Refuses a server whose files cannot be read here.
pub fn refuse_unreadable(block_size: u32, wal_block_size: u32, version_text: &str) -> Result<()> {
    if block_size as usize != PAGE {
        return Err(other_pages("pages of its tables", block_size));
    }
    refuse_log_pages(wal_block_size)?;
    match machine_of(version_text) {
        Some(machine) if machine.big_endian != cfg!(target_endian = "big") => {
            Err(Failure::preflight(format!(
                "the server's machine ({}) lays numbers the other way round in its files than this one ({ARCH})",
                machine.name
            ))
            .hint("Run Mainstay on the server's own machine."))
        }
        _ => Ok(()),
    }
}

/// Refuses a server that was built with other pages of its WAL (`--with-wal-blocksize`).
pub fn refuse_log_pages(wal_block_size: u32) -> Result<()> {
    match wal_block_size as usize {
        PAGE => Ok(()),
        _ => Err(other_pages("pages of its WAL", wal_block_size)),
    }
}

/// Refuses a server whose tables lie in files of another size than 1 GiB (`--with-segsize`): which block a file begins with
/// follows from it, and every page of a second file would count as damaged.
pub fn refuse_other_files(segment_size: &str) -> Result<()> {
    match segment_size {
        "1GB" => Ok(()),
        other => Err(Failure::preflight(format!(
            "the server was built with tables in files of {other}; only those of 1GB, which every package has, can be read"
        ))
        .hint("Back its databases up logically: a source of kind postgres.")),
    }
}

fn other_pages(what: &str, bytes: u32) -> Failure {
    Failure::preflight(format!(
        "the server was built with {what} of {bytes} bytes; only those of {PAGE}, which every package has, can be read"
    ))
    .hint("Back its databases up logically: a source of kind postgres.")
}

/// Refuses to put a base backup where no server could run on it.
pub fn refuse_other_machine(facts: &ClusterFacts) -> Result<()> {
    match machine_of(&facts.version_text) {
        Some(machine) if !machine.runs_on(ARCH) => Err(Failure::preflight(format!(
            "the base backup is of a server on {}, and this machine is {ARCH}: no server here can run on its files",
            machine.name
        ))
        .hint("Restore it on a machine of that kind. From one kind to another a logical backup leads: a source of kind postgres.")),
        _ => Ok(()),
    }
}

/// A kind of machine, as Rust names it.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    name: &'static str,
    big_endian: bool,
}

impl Machine {
    /// A server for the smaller machine of a family runs on the larger one, too.
    fn runs_on(&self, here: &str) -> bool {
        self.name == here || matches!((self.name, here), ("x86", "x86_64") | ("arm", "aarch64"))
    }
}

/// Where a server runs, as `version()` says it: `PostgreSQL 17.2 on x86_64-pc-linux-gnu, compiled by …`. `None`: it says nothing that is known.
fn machine_of(version_text: &str) -> Option<Machine> {
    let (_, target) = version_text.split_once(" on ")?;
    let (word, _) = target.split_once('-')?;
    let (name, big_endian) = match word {
        "x86_64" | "amd64" => ("x86_64", false),
        "i386" | "i486" | "i586" | "i686" => ("x86", false),
        "aarch64" | "arm64" => ("aarch64", false),
        "powerpc64le" | "ppc64le" => ("powerpc64", false),
        "powerpc64" | "ppc64" => ("powerpc64", true),
        "riscv64" | "riscv64gc" => ("riscv64", false),
        "loongarch64" => ("loongarch64", false),
        "s390x" => ("s390x", true),
        "sparc64" => ("sparc64", true),
        word if word.starts_with("armv") || word == "arm" => ("arm", false),
        _ => return None,
    };
    Some(Machine { name, big_endian })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(machine: &str) -> String {
        format!(
            "PostgreSQL 17.2 (Debian 17.2-1.pgdg120+1) on {machine}, compiled by gcc (Debian 12.2.0-14) 12.2.0, 64-bit"
        )
    }

    #[test]
    fn a_server_whose_files_cannot_be_read_is_refused_in_words() {
        let own = text("x86_64-pc-linux-gnu");
        assert!(refuse_unreadable(8192, 8192, &own).is_ok());
        assert!(refuse_unreadable(8192, 8192, "EnterpriseDB something").is_ok(), "nothing is known of it");
        let refused = |block, log, text: &str| refuse_unreadable(block, log, text).unwrap_err().message;
        assert!(refused(16384, 8192, &own).contains("pages of its tables of 16384 bytes"));
        assert!(refused(8192, 65536, &own).contains("pages of its WAL of 65536 bytes"));
        assert!(refused(8192, 8192, &text("s390x-ibm-linux-gnu")).contains("the other way round"));
    }

    #[test]
    fn a_server_runs_on_its_own_kind_of_machine() {
        let runs =
            |target: &str, here: &str| machine_of(&text(target)).is_none_or(|machine| machine.runs_on(here));
        assert!(runs("x86_64-pc-linux-gnu", "x86_64") && runs("aarch64-unknown-linux-gnu", "aarch64"));
        assert!(runs("i686-pc-linux-gnu", "x86_64") && runs("armv7l-unknown-linux-gnueabihf", "aarch64"));
        assert!(runs("powerpc64le-unknown-linux-gnu", "powerpc64"));
        assert!(!runs("aarch64-unknown-linux-gnu", "x86_64") && !runs("x86_64-pc-linux-gnu", "aarch64"));
        assert!(runs("vax-dec-ultrix", "x86_64"), "nothing is known of it");
    }
}
