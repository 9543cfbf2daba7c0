//! The pages of `doc/reference/` that are made from the program itself.
//!
//! They are compared here; `MAINSTAY_REGENERATE=1 cargo nextest run -p mainstay-cli reference` writes them anew.

use crate::Place;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::Path,
};

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

/// The rows of the table in `json.md`: the types of each, and the fields that all its lines together have.
fn json_rows() -> Vec<(Vec<String>, Vec<String>)> {
    let words = |cell: &str| -> Vec<String> {
        let mut depth = 0_usize;
        let mut outside = String::new();
        for c in cell.chars() {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                c if depth == 0 => outside.push(c),
                _ => {}
            }
        }
        outside.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../doc/reference/json.md");
    let page = fs::read_to_string(page).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [types, _, fields] = cells[..] else { panic!("{row}") };
        (words(types), words(fields))
    })
    .collect()
}

/// The sources of the commands, put together.
fn commands(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => commands(&path, text),
            false => text.push_str(&fs::read_to_string(&path).unwrap()),
        }
    }
}

#[test]
fn the_json_page_lists_every_type_of_line_once() {
    let mut documented: Vec<String> = json_rows().into_iter().flat_map(|(types, _)| types).collect();
    documented.sort();
    let mut once = documented.clone();
    once.dedup();
    assert_eq!(documented, once, "a type stands in two rows");
    let mut code = String::new();
    commands(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
    let mut printed: Vec<&str> = Vec::new();
    for begin in [".json(", "\"type\":", "show_as(context, unnamed,"] {
        for (at, _) in code.match_indices(begin) {
            let Some(rest) = code[at + begin.len()..].trim_start().strip_prefix('"') else { continue };
            printed.push(rest.split('"').next().unwrap());
        }
    }
    assert!(printed.len() > 50, "{printed:?}");
    for kind in &printed {
        assert!(documented.iter().any(|known| known == kind), "{kind} is printed and not documented");
    }
    for kind in &documented {
        // Of two possible ones, one is chosen by a variable.
        assert!(code.contains(&format!("\"{kind}\"")), "{kind} is documented and printed nowhere");
    }
}

#[test]
fn what_commands_print_as_json_has_the_fields_that_the_page_names() {
    let place = crate::shop();
    place.write("two.key", &"ab".repeat(32));
    let mut lines: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut run = |code: i32, words: &[&str]| {
        let ran = place.run(&[words, &["--json"]].concat());
        assert_eq!(ran.code, code, "{words:?}\n{}", ran.all());
        for line in ran.stdout.lines() {
            let line: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{words:?}: {error}\n{line}"));
            assert_eq!(line["v"], 1, "{words:?}: {line}");
            lines.entry(line["type"].as_str().unwrap().to_owned()).or_default().push(line);
        }
    };
    run(0, &["config", "check"]);
    run(0, &["config", "show"]);
    run(0, &["backup", "shop"]);
    fs::write(place.at("uploads/new"), "new").unwrap();
    run(0, &["backup", "shop", "--policy", "nightly"]);
    for words in [
        &["list"][..],
        &["show", "shop"],
        &["ls", "shop"],
        &["find", "shop", "*.txt"],
        &["diff", "shop", "--live"],
        &["restore", "shop", "--to-dir", "back"],
        &["verify", "shop"],
        &["verify", "shop", "--level", "restore"],
        &["status"],
        &["doctor"],
        &["hold", "add", "shop", "--reason", "why"],
        &["hold", "list", "shop"],
        &["hold", "release", "shop", "--reason", "why"],
        &["key", "generate"],
        &["key", "generate", "--output", "three.key"],
        &["key", "add", "--label", "two", "--key-file", "two.key"],
        &["key", "add", "--label", "two", "--key-file", "two.key"],
        &["key", "list"],
        &["key", "kit"],
        &["key", "kit", "--output", "kit.txt"],
        &["key", "remove", "two", "--yes"],
        &["recover", "--store", "store"],
        &["repair", "--packs"],
        &["repair", "--acknowledge"],
        &["repair", "--accept-rollback"],
        &["prune", "--dry-run"],
        &["backup", "shop"],
        &["delete", "shop", "--yes"],
        &["prune", "--yes", "--grace", "0s"],
    ] {
        run(0, words);
    }
    fs::remove_file(place.at("uploads/new")).unwrap();
    run(0, &["diff", "shop", "--live"]);
    run(10, &["show", "0000"]);
    let rows = json_rows();
    for kind in lines.keys() {
        assert!(rows.iter().any(|(types, _)| types.contains(kind)), "{kind} is printed and not documented");
    }
    let (mut checked, mut wrong) = (0, Vec::new());
    for (types, fields) in &rows {
        // Rows of which this place prints only a part say more than it can show.
        if types.iter().any(|kind| !lines.contains_key(kind)) || types.iter().any(|kind| kind == "repair") {
            continue;
        }
        let of_row = || types.iter().flat_map(|kind| &lines[kind]);
        let missing: Vec<&String> =
            fields.iter().filter(|field| !of_row().any(|line| line.get(field).is_some())).collect();
        if !missing.is_empty() {
            let there: BTreeSet<&String> =
                of_row().flat_map(|line| line.as_object().unwrap().keys()).collect();
            wrong.push(format!("{types:?} has no {missing:?}; it has {there:?}"));
        }
        checked += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked >= 20, "only {checked} rows were compared");
}
