//! The recovery kit: a page to print and keep elsewhere, from which a repository can be recovered when nothing else is left.
//!
//! It says which repository it is for (its fingerprint), where the copies lie, who holds keys, what to type, and repeats the
//! small objects without which nothing can be read (`format`, `trust/*`, `keys/*`) as base64, so that they survive the loss
//! of a store. [`objects`] reads them back. The key itself is in it only where the user asked for that; otherwise there is
//! room to write it down. Both forms say the same: plain text, and one HTML file that needs nothing else.

use crate::{
    recipient::{self, RecipientKind},
    secret::Secret,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mainstay_domain::{RepositoryId, Time};
use zeroize::Zeroizing;

mod html;
mod text;

pub use text::objects;

/// What a kit is made from.
pub struct Kit<'a> {
    /// The repository's name in the configuration.
    pub name: &'a str,
    /// Its root verify key.
    pub root: [u8; 32],
    pub created: Time,
    /// Addresses of its stores, without secrets, the first one first.
    pub stores: &'a [String],
    /// The objects `format`, `trust/*` and `keys/*` as they lie in a store: name and bytes.
    pub objects: &'a [(String, Vec<u8>)],
    /// Printed in clear; only where the user asked for it.
    pub key: Option<&'a Secret>,
}

impl Kit<'_> {
    /// The kit as plain text of at most 78 columns. Wiped when dropped, as it may hold the key.
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(text::render(self))
    }

    /// The kit as one HTML file for printing. Wiped when dropped, as it may hold the key.
    pub fn html(&self) -> Zeroizing<String> {
        Zeroizing::new(html::render(self))
    }

    fn repository(&self) -> RepositoryId {
        RepositoryId(*blake3::hash(&self.root).as_bytes())
    }

    fn key_text(&self) -> Option<Zeroizing<String>> {
        let text = self.key?.key_text()?;
        Some(Zeroizing::new(groups(&text).join(" ")))
    }

    fn holders(&self) -> Vec<Holder> {
        let mut holders: Vec<Holder> = self
            .objects
            .iter()
            .filter(|(name, _)| name.starts_with("keys/"))
            .filter_map(|(_, bytes)| recipient::parse(bytes, &self.root).ok())
            .map(|r| Holder {
                label: r.label().to_owned(),
                kind: r.kind(),
                epoch: r.epoch(),
                created: r.created(),
            })
            .collect();
        holders.sort_by(|a, b| (a.epoch, &a.label, a.created).cmp(&(b.epoch, &b.label, b.created)));
        holders
    }

    /// What to type, for those who hold a key and for those who hold a passphrase. Any shell understands it, and no history keeps
    /// the secret.
    fn ways(&self) -> Vec<Way> {
        let holders = self.holders();
        let held = |kind| holders.iter().any(|holder| holder.kind == kind);
        let with_passphrase = held(RecipientKind::Passphrase);
        let with_key = held(RecipientKind::Key) || !with_passphrase;
        let way = |secret, variable: &str, options: &str| {
            let enter = format!("stty -echo; IFS= read -r {variable}; stty echo\nexport {variable}");
            let stores = self.stores.iter();
            let recover =
                stores.map(|store| format!("mainstay recover{options} --store {}", shell_word(store)));
            Way { secret, commands: std::iter::once(enter).chain(recover).collect() }
        };
        let passphrase = " --passphrase-env MAINSTAY_PASSPHRASE \\\n   ";
        let key = with_key.then(|| way("the key", "MAINSTAY_KEY", ""));
        let passphrase = with_passphrase.then(|| way("the passphrase", "MAINSTAY_PASSPHRASE", passphrase));
        key.into_iter().chain(passphrase).collect()
    }
}

/// One way to recover.
struct Way {
    /// What is needed for it.
    secret: &'static str,
    commands: Vec<String>,
}

impl Way {
    fn lines(&self) -> impl Iterator<Item = &str> {
        self.commands.iter().flat_map(|command| command.lines())
    }
}

/// How to go on from there. Told in words: what is in the repository is not known here.
const RESTORE: &str = "\
Any of the stores will do. To restore, type it again and add
  --to-dir FOLDER                           for files;
  --to-database NAME --to-url-env VARIABLE  for a database: VARIABLE holds the
                                            address of a PostgreSQL server;
  --app NAME                                where the list shows several.";

/// Who holds a key or a passphrase.
struct Holder {
    label: String,
    kind: RecipientKind,
    epoch: u32,
    created: Time,
}

impl Holder {
    fn describe(&self) -> String {
        let label = if self.label.is_empty() { "(no label)" } else { &self.label };
        let created = self.created.to_string();
        format!(
            "{label}: {}, epoch {}, since {}",
            self.kind,
            self.epoch,
            created.split('T').next().unwrap_or(&created)
        )
    }
}

/// A repository's fingerprint as people compare it: groups of four hexadecimal digits, on two lines.
pub fn fingerprint(repository: &RepositoryId) -> String {
    let digits = repository.to_string();
    groups(&digits).chunks(8).map(|line| line.join(" ")).collect::<Vec<_>>().join("\n")
}

fn groups(digits: &str) -> Vec<&str> {
    digits.as_bytes().chunks(4).filter_map(|group| std::str::from_utf8(group).ok()).collect()
}

/// Base64 in lines of 64.
fn wrapped(bytes: &[u8]) -> Vec<String> {
    let text = STANDARD.encode(bytes);
    text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

/// The first eight hexadecimal digits of the hash, to find a mistake in what was typed or scanned.
fn checksum(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..8].to_owned()
}

/// The text as one word for a shell.
fn shell_word(text: &str) -> String {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/:._-@%+=,".contains(&b)) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests;
