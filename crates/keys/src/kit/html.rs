//! The kit as one HTML file: no scripts, no links to elsewhere, made for black ink on paper.

use super::{Kit, RESTORE, checksum, fingerprint, wrapped};
use std::fmt::Write;

const STYLE: &str = "
@page { margin: 18mm }
body { font: 11pt/1.45 system-ui, sans-serif; color: #000; background: #fff; max-width: 46em; margin: 2em auto; padding: 0 1em }
h1 { font-size: 20pt; margin: 0 0 .2em; border-bottom: 3px solid #000 }
h2 { font-size: 13pt; margin: 1.6em 0 .4em; break-after: avoid }
dl { display: grid; grid-template-columns: 8em 1fr; gap: .3em 1em }
dt { font-weight: 600 } dd { margin: 0; overflow-wrap: anywhere }
pre, code, .key { font-family: ui-monospace, 'DejaVu Sans Mono', monospace }
pre { font-size: 8.5pt; line-height: 1.35; margin: .2em 0; white-space: pre-wrap; overflow-wrap: anywhere }
pre.type { font-size: 11pt; border: 1px solid #000; padding: .6em }
.fingerprint { font-size: 12pt; white-space: pre }
.key { display: grid; grid-template-columns: repeat(8, 1fr); gap: .5em; font-size: 13pt; text-align: center }
.key span { border: 1.5px solid #000; padding: .35em 0; min-height: 1.3em }
.line { border-bottom: 1px solid #000; height: 2em }
section.object { break-inside: avoid; margin: .8em 0 }
.name { font-size: 9pt; font-weight: 600 }
";

pub(super) fn render(kit: &Kit<'_>) -> String {
    let mut out = String::new();
    page(kit, &mut out).expect("writing to a String cannot fail");
    out
}

fn page(kit: &Kit<'_>, out: &mut String) -> std::fmt::Result {
    let name = escaped(kit.name);
    writeln!(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
    writeln!(out, "<title>Mainstay recovery kit: {name}</title>\n<style>{STYLE}</style>\n</head>\n<body>")?;
    writeln!(out, "<h1>Mainstay recovery kit</h1>")?;
    writeln!(out, "<p>Keep this away from the machines and the stores that it is about.</p>")?;

    writeln!(out, "<dl>\n<dt>Repository</dt><dd>{name}</dd>")?;
    let fingerprint = fingerprint(&kit.repository());
    writeln!(out, "<dt>Fingerprint</dt><dd><code class=\"fingerprint\">{fingerprint}</code></dd>")?;
    writeln!(out, "<dt>Made</dt><dd>{}</dd>", kit.created)?;
    let lines = |lines: Vec<String>| lines.iter().map(|line| escaped(line)).collect::<Vec<_>>().join("<br>");
    writeln!(out, "<dt>Stores</dt><dd>{}</dd>", lines(kit.stores.to_vec()))?;
    let holders = kit.holders().iter().map(|holder| holder.describe()).collect();
    writeln!(out, "<dt>Opened by</dt><dd>{}</dd>\n</dl>", lines(holders))?;

    writeln!(out, "<h2>The key</h2>")?;
    match kit.key_text() {
        Some(key) => {
            writeln!(
                out,
                "<p><strong>Whoever holds this page can read every backup.</strong> Spaces do not count.</p>"
            )?;
            writeln!(out, "<div class=\"key\">")?;
            key.split(' ').try_for_each(|group| writeln!(out, "<span>{group}</span>"))?;
            writeln!(out, "</div>")?;
        }
        None => {
            writeln!(
                out,
                "<p>It is not printed here. Without it nothing can be restored. Write it down (64 digits 0–9 a–f, or the \
                 passphrase), or say where it is kept.</p>"
            )?;
            writeln!(out, "<div class=\"key\">{}</div>", "<span></span>".repeat(16))?;
            writeln!(out, "<p>Kept at</p><div class=\"line\"></div>")?;
        }
    }

    writeln!(out, "<h2>To recover</h2>")?;
    writeln!(
        out,
        "<p>On any Linux machine with <code>mainstay</code> installed, and nothing else, type</p>"
    )?;
    for way in kit.ways() {
        writeln!(out, "<p>with {}:</p>", way.secret)?;
        writeln!(out, "<pre class=\"type\">{}</pre>", escaped(&way.commands.join("\n")))?;
    }
    writeln!(
        out,
        "<p>The first line waits for the secret, which is not shown. Then compare the fingerprint with the one above: if it \
         differs, it is not this repository.</p>\n<pre>{}</pre>",
        escaped(RESTORE)
    )?;

    writeln!(out, "<h2>Objects</h2>")?;
    writeln!(
        out,
        "<p>Copies of the small objects that every store of this repository holds. They are needed only where a store has lost \
         them. They hold no secret in clear.</p>"
    )?;
    for (name, bytes) in kit.objects {
        let (name, sum) = (escaped(name), checksum(bytes));
        writeln!(out, "<section class=\"object\"><div class=\"name\">{name} <code>{sum}</code></div>")?;
        writeln!(out, "<pre>{}</pre></section>", wrapped(bytes).join("\n"))?;
    }
    writeln!(out, "</body>\n</html>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}
