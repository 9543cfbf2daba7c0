//! What is wrong with a repository itself: said before anything is believed of what it lists, and no less than a lost pack a reason
//! not to call it intact.

use crate::repair;
use mainstay_domain::Result;
use mainstay_repository::Repository;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The object, or `store`.
    pub object: String,
    pub text: String,
    /// What to do.
    pub hint: String,
    /// Nothing is written to the repository until it is settled.
    pub stops_backups: bool,
}

/// Everything that is wrong, as far as opening it has shown.
pub fn of(repository: &Repository) -> Result<Vec<Damage>> {
    look(repository, !repository.state()?.doubts.is_empty())
}

/// The same, with what only a listing of the log shows.
pub fn all_of(repository: &Repository) -> Result<Vec<Damage>> {
    look(repository, repository.impairments().is_empty())
}

/// `listing`: whether to ask the store for what is in the log beyond what was read.
fn look(repository: &Repository, listing: bool) -> Result<Vec<Damage>> {
    let mut found = Vec::new();
    if repository.was_rolled_back() {
        found.push(Damage {
            object: "store".to_owned(),
            text: "it has lost entries that this machine had seen: it was restored from an older copy of itself, and recovery points \
                   made since then are gone"
                .to_owned(),
            hint: "To go on with what is there: `mainstay repair --accept-rollback`, then a new backup.".to_owned(),
            stops_backups: true,
        });
    }
    found.extend(repository.impairments().iter().map(|wrong| Damage {
        object: "store".to_owned(),
        text: format!(
            "the repository is damaged and only read: {wrong}. Every point is listed whose manifest can be read, also one that was \
             deleted and is not yet collected"
        ),
        hint: match wrong.starts_with("its log") {
            true => "Restore from it what is needed, and begin a new repository.".to_owned(),
            false => "To put back what the recovery kit holds: `mainstay repair --kit FILE`.".to_owned(),
        },
        stops_backups: true,
    }));
    if !listing {
        return Ok(found);
    }
    // Nobody's restore may fail for want of a listing: what was read in doubt is known without.
    let (entries, unnamed): (_, Vec<String>) = match repair::doubts(repository) {
        Ok(doubts) => (doubts.entries, doubts.unnamed.iter().map(|(id, _)| id.short()).collect()),
        Err(_) => (repository.state()?.doubts, Vec::new()),
    };
    let points = match unnamed.len() {
        0 => String::new(),
        _ => format!("; recovery points in the store that the log does not name: {}", unnamed.join(", ")),
    };
    found.extend(entries.iter().map(|(n, doubt)| Damage {
        object: format!("log entry {n}"),
        text: format!("{doubt}{points}"),
        hint: match unnamed.is_empty() {
            true => "To settle it: `mainstay repair --acknowledge`.".to_owned(),
            false => "To take points back: `mainstay repair --adopt ID`; then to settle it: `mainstay repair --acknowledge`.".to_owned(),
        },
        stops_backups: false,
    }));
    Ok(found)
}
