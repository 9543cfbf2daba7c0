//! The kit as plain text, and the way back from it to the objects.

use super::{Kit, RESTORE, checksum, fingerprint, wrapped};
use base64::{Engine as _, engine::general_purpose::STANDARD};

const BEGIN: &str = "-----BEGIN MAINSTAY OBJECT ";
const END: &str = "-----END MAINSTAY OBJECT ";
const DASHES: &str = "-----";

pub(super) fn render(kit: &Kit<'_>) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line("MAINSTAY RECOVERY KIT");
    line("=====================");
    line("");
    line("Keep this away from the machines and the stores that it is about.");
    line("");
    line(&format!("Repository   {}", kit.name));
    let fingerprint = fingerprint(&kit.repository());
    for (at, part) in fingerprint.lines().enumerate() {
        line(&format!("{:<13}{part}", if at == 0 { "Fingerprint" } else { "" }));
    }
    line(&format!("Made         {}", kit.created));
    for (at, store) in kit.stores.iter().enumerate() {
        line(&format!("{:<13}{store}", if at == 0 { "Stores" } else { "" }));
    }
    for (at, holder) in kit.holders().iter().enumerate() {
        line(&format!("{:<13}{}", if at == 0 { "Opened by" } else { "" }, holder.describe()));
    }

    line("");
    line("The key");
    line("-------");
    match kit.key_text() {
        Some(key) => {
            line("Whoever holds this page can read every backup. Spaces do not count.");
            line("");
            for part in key.split(' ').collect::<Vec<_>>().chunks(8) {
                line(&format!("    {}", part.join(" ")));
            }
        }
        None => {
            line("It is not printed here. Without it nothing can be restored. Write it down (64");
            line("digits 0-9 a-f, or the passphrase), or say where it is kept:");
            for _ in 0..2 {
                line("");
                line(&format!("    {}", ["____"; 8].join(" ")));
            }
            line("");
            line(&format!("    Kept at: {}", "_".repeat(50)));
        }
    }

    line("");
    line("To recover");
    line("----------");
    line("On any Linux machine with mainstay installed, and nothing else, type");
    for way in kit.ways() {
        line("");
        line(&format!("with {}:", way.secret));
        line("");
        way.lines().for_each(|command| line(&format!("    {command}")));
    }
    line("");
    line("The first line waits for the secret, which is not shown. Then compare the");
    line("fingerprint with the one above: if it differs, it is not this repository.");
    RESTORE.lines().for_each(&mut line);

    line("");
    line("Objects");
    line("-------");
    line("Copies of the small objects that every store of this repository holds. They are");
    line("needed only where a store has lost them. They hold no secret in clear.");
    for (name, bytes) in kit.objects {
        line("");
        line(&format!("{BEGIN}{name} {}{DASHES}", checksum(bytes)));
        wrapped(bytes).iter().for_each(|part| line(part));
        line(&format!("{END}{name}{DASHES}"));
    }
    out
}

/// The objects in a kit's text, by name. Blank lines, indentation and text around the blocks do not matter.
///
/// # Errors
/// One sentence that names the object that is incomplete or mistyped.
pub fn objects(text: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut found = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(head) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(DASHES)) else {
            continue;
        };
        let (name, sum) = head.split_once(' ').ok_or_else(|| format!("the line {line:?} has no checksum"))?;
        let end = format!("{END}{name}{DASHES}");
        let mut base64 = String::new();
        loop {
            match lines.next() {
                None => return Err(format!("{name} has no end in this kit")),
                Some(line) if line == end => break,
                Some(line) => base64.extend(line.split_whitespace()),
            }
        }
        let bytes = STANDARD.decode(&base64).map_err(|_| format!("{name} is mistyped: it is no base64"))?;
        if checksum(&bytes) != sum {
            return Err(format!("{name} is mistyped: its checksum is {}, not {sum}", checksum(&bytes)));
        }
        found.push((name.to_owned(), bytes));
    }
    Ok(found)
}
