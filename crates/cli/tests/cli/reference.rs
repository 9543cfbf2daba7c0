//! The pages of `doc/reference/` that are made from the program itself.
//!
//! They are compared here; `MAINSTAY_REGENERATE=1 cargo nextest run -p mainstay-cli reference` writes them anew.

use crate::Place;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

fn compare(page: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../doc/reference").join(page);
    if std::env::var_os("MAINSTAY_REGENERATE").is_some() {
        fs::write(&path, made).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == made,
        "doc/reference/{page} is not what the program says; set MAINSTAY_REGENERATE=1 and run this test again"
    );
}

/// `--help` of a command, and of every command below it, in the order of the help.
fn help(place: &Place, command: &[&str], page: &mut String) {
    let ran = place.run(&[command, &["--help"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.all());
    let name = [&["mainstay"], command].concat().join(" ");
    let level = "#".repeat(2 + command.len().min(2));
    let text: Vec<_> = ran.stdout.lines().map(str::trim_end).collect();
    write!(page, "{level} {name}\n\n```text\n{}\n```\n\n", text.join("\n").trim_end()).unwrap();
    let below = ran.stdout.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names: Vec<_> = below
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for name in names {
        help(place, &[command, &[name]].concat(), page);
    }
}

#[test]
fn the_command_line_page_is_the_help_texts() {
    let mut page = String::from(
        "# The command line\n\n\
         Every command with its options, as `--help` prints them. Exit codes are in [exit-codes.md](exit-codes.md),\n\
         the configuration is in [config.md](config.md).\n\n",
    );
    help(&Place::new(), &[], &mut page);
    compare("cli.md", &format!("{}\n", page.trim_end()));
}

#[test]
fn the_configuration_page_is_the_schema() {
    let ran = Place::new().run(&["config", "schema"]);
    let schema: Value = serde_json::from_str(&ran.stdout).unwrap();
    let mut page = String::from(
        "# The configuration file\n\n\
         One YAML file: `--config`, else `MAINSTAY_CONFIG`, else `./mainstay.yaml`, else `/etc/mainstay/mainstay.yaml`.\n\
         It is read strictly: unknown and duplicate keys are errors, nothing is interpolated, and no secret stands in it:\n\
         a secret is named by environment variable, file or command. A file that other users can write is refused.\n\n\
         `mainstay config check` says what is wrong with it, `mainstay config show` writes out every default,\n\
         `mainstay config schema` prints the JSON schema from which this page is made.\n\n",
    );
    section(&mut page, "The file", &schema);
    let definitions: BTreeMap<String, Value> = serde_json::from_value(schema["$defs"].clone()).unwrap();
    for (name, definition) in &definitions {
        if definition["properties"].is_object()
            || definition["oneOf"].is_array()
            || definition["anyOf"].is_array()
        {
            section(&mut page, name, definition);
        }
    }
    compare("config.md", &format!("{}\n", page.trim_end()));
}

fn section(page: &mut String, name: &str, schema: &Value) {
    write!(page, "## {name}\n\n").unwrap();
    if let Some(text) = schema["description"].as_str() {
        write!(page, "{}\n\n", text.replace('\n', " ")).unwrap();
    }
    if let Some(choices) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        page.push_str("One of:\n\n");
        for choice in choices {
            let text = choice["description"].as_str().unwrap_or_default().replace('\n', " ");
            match choice["properties"].as_object().and_then(|p| p.iter().next()) {
                Some((key, value)) => writeln!(page, "- `{key}: …` ({}) {text}", kind(value)).unwrap(),
                None => writeln!(page, "- {} {text}", kind(choice)).unwrap(),
            }
        }
        page.push('\n');
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    let required: Vec<_> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    page.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    for (key, value) in properties {
        let default = match &value["default"] {
            _ if required.contains(&key.as_str()) => "required".to_owned(),
            Value::Null => String::new(),
            value => format!("`{value}`"),
        };
        let text = value["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        writeln!(page, "| `{key}` | {} | {default} | {text} |", kind(value)).unwrap();
    }
    page.push('\n');
}

/// What may stand there, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|r| r.rsplit('/').next()) {
        return name.to_owned();
    }
    if let Some(word) = schema["const"].as_str() {
        return format!("`{word}`");
    }
    if let Some(words) = schema["enum"].as_array() {
        return words
            .iter()
            .map(|word| format!("`{}`", word.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if let Some(choices) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let kinds: Vec<_> = choices.iter().map(kind).filter(|kind| kind != "null").collect();
        return kinds.join(" or ");
    }
    let types: Vec<_> = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => {
            several.iter().filter_map(Value::as_str).filter(|one| *one != "null").collect()
        }
        _ => vec![],
    };
    match types[..] {
        ["array"] => format!("list of {}", kind(&schema["items"])),
        ["object"] if schema["additionalProperties"].is_object() => {
            format!("map of {}", kind(&schema["additionalProperties"]))
        }
        _ => types.join(" or "),
    }
}

#[test]
fn the_exit_code_page_lists_every_kind_of_failure() {
    use mainstay_domain::Kind;
    let rows = [
        (0, "done", "All of it was done."),
        (Kind::Failed.exit_code(), "failed", "The work could not be done."),
        (
            Kind::Usage.exit_code(),
            "usage",
            "The command line or the configuration is wrong. Nothing was done.",
        ),
        (
            Kind::Incomplete.exit_code(),
            "incomplete",
            "Part of it was done; the rest is named. An incomplete recovery point never counts as a good one.",
        ),
        (
            Kind::Verification.exit_code(),
            "verification",
            "Something is missing, damaged, or not what was recorded.",
        ),
        (Kind::Objective.exit_code(), "objective", "A recovery objective was missed."),
        (
            Kind::NoRepository.exit_code(),
            "no_repository",
            "There is no repository, or no such recovery point.",
        ),
        (
            Kind::Busy.exit_code(),
            "busy",
            "Somebody else holds what is needed. Trying again later can succeed.",
        ),
        (Kind::WrongKey.exit_code(), "wrong_key", "The key does not open this repository."),
        (
            Kind::Refused.exit_code(),
            "refused",
            "A hold, a lock or a role forbids it, or something in the repository's log is in doubt.",
        ),
        (
            Kind::Preflight.exit_code(),
            "preflight",
            "A condition that was checked beforehand does not hold (space, versions, permissions, connections). Nothing was done.",
        ),
        (Kind::Cancelled.exit_code(), "cancelled", "The user stopped it."),
    ];
    let mut page = String::from(
        "# Exit codes\n\n\
         Each failure is of one kind, and each kind has one exit code. With `--json` the last line has the kind's name.\n\n\
         | code | kind | what it means |\n|---|---|---|\n",
    );
    for (code, name, text) in rows {
        writeln!(page, "| {code} | `{name}` | {text} |").unwrap();
    }
    compare("exit-codes.md", &page);
}
