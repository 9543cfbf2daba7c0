//! What a configuration's reader is told.

use super::*;
use mainstay_domain::{Failure, Kind};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

const SHOP: &str = r#"
version: 1
stores:
  local: { url: "file:///var/lib/mainstay", media: disk, site: office }
repositories:
  main: { key: { env: MAINSTAY_KEY }, stores: [local] }
apps:
  shop:
    repository: main
    sources:
      db: { postgres: { url: { env: DATABASE_URL } } }
      uploads: { files: { paths: [/srv/shop/uploads] } }
    policies:
      nightly: { schedule: "0 3 * * *", keep: { last: 3 } }
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("mainstay.yaml")).map_err(|error| {
        let failure = Failure::from(error);
        assert_eq!(failure.kind, Kind::Usage);
        format!("{failure} | {}", failure.hint.as_deref().unwrap_or_default())
    })
}

/// The message for the configuration above with `from` replaced by `to`.
fn refusal(from: &str, to: &str) -> String {
    assert!(SHOP.contains(from), "{from}");
    parse(&SHOP.replace(from, to)).unwrap_err()
}

#[test]
fn what_is_not_said_has_its_documented_default() {
    let config = parse(SHOP).unwrap();
    let main = &config.repositories["main"];
    assert_eq!(
        (main.copies_required, main.compression.level, main.pack_size.0, main.verify_after),
        (1, None, 16 << 20, VerifyAfter::Packs)
    );
    assert_eq!(config.apps["shop"].environment, "production");
    assert_eq!(config.apps["shop"].policies["nightly"].zone().unwrap(), jiff::tz::TimeZone::UTC);
}

#[test]
fn what_is_shown_can_be_read_again() {
    let shown = parse(SHOP).unwrap().to_yaml();
    assert_eq!(parse(&shown).unwrap().to_yaml(), shown, "{shown}");
}

#[test]
fn an_unknown_key_or_word_is_refused_with_line_column_and_a_suggestion() {
    assert_eq!(
        refusal("media: disk", "medium: disk"),
        "mainstay.yaml:4:45: unknown key `medium`, expected `url`, `media`, `site` or `quota` | Did you mean `media`?"
    );
    assert!(refusal("media: disk", "media: dsk").contains("4:52: unknown word `dsk`"));
    assert!(refusal("{ files:", "{ file:").ends_with("Did you mean `files`?"));
}

#[test]
fn a_limit_that_nobody_would_keep_is_refused() {
    let message = refusal("media: disk", "quota: 100GiB");
    assert!(message.contains("stores.local.quota") && message.contains("limits no store"), "{message}");
}

#[test]
fn a_level_without_compression_is_refused() {
    let with = |words: &str| {
        SHOP.replace("stores: [local] }", &format!("stores: [local], compression: {{ {words} }} }}"))
    };
    for words in ["algorithm: none", "algorithm: zstd, level: 19", "level: 1"] {
        assert!(parse(&with(words)).is_ok(), "{words}");
    }
    let message = parse(&with("algorithm: none, level: 3")).unwrap_err();
    assert!(message.contains("repositories.main.compression.level"), "{message}");
}

#[test]
fn a_key_written_twice_is_refused() {
    let message = refusal("version: 1", "version: 1\nversion: 1");
    assert!(message.starts_with("mainstay.yaml:3:1: duplicate key: version | "), "{message}");
    let message = refusal("media: disk", "url: \"file:///elsewhere\"");
    assert!(message.starts_with("mainstay.yaml:4:45: duplicate key: url | "), "{message}");
}

#[test]
fn broken_yaml_is_refused_with_its_place() {
    let message = refusal("  local: {", "\tlocal: {");
    assert!(message.starts_with("mainstay.yaml:4:2: a tab stands here"), "{message}");
    assert!(parse("").unwrap_err().starts_with("mainstay.yaml:1:1: "));
    let message = refusal("\"0 3 * * *\"", "daily");
    assert!(message.starts_with("mainstay.yaml:14:28: \"daily\" is not a schedule"), "{message}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mainstay.yaml");
    fs::write(&path, b"version: 1\nstores: \xff\n").unwrap();
    let failure = Failure::from(Config::load(&path).unwrap_err());
    assert!(failure.message.contains("mainstay.yaml:2:9: this is not UTF-8"), "{failure}");
}

#[test]
fn nothing_in_it_is_interpolated() {
    let config = parse(&SHOP.replace("office", "\"${HOME} $HOME\"")).unwrap();
    assert_eq!(config.stores["local"].site.as_deref(), Some("${HOME} $HOME"));
}

#[test]
fn names_that_refer_to_nothing_are_all_reported_together() {
    let text = SHOP
        .replace("repository: main", "repository: mian")
        .replace("stores: [local]", "stores: [locale]")
        .replace("\"0 3 * * *\"", "\"0 3 * * *\", sources: [upload], timezone: Mars/Olympus");
    let message = parse(&text).unwrap_err();
    for part in [
        "repositories.main.stores[0]: there is no store named \"locale\" (did you mean \"local\"?)",
        "apps.shop.repository: there is no repository named \"mian\" (did you mean \"main\"?)",
        "apps.shop.policies.nightly.sources[0]: there is no source named \"upload\" (did you mean \"uploads\"?)",
        "apps.shop.policies.nightly.timezone: \"Mars/Olympus\" is not a time zone",
    ] {
        assert!(message.contains(part), "{part}\nnot in\n{message}");
    }
}

#[test]
fn numbers_that_cannot_work_are_refused() {
    let with = |more: &str| refusal("stores: [local] }", &format!("stores: [local], {more} }}"));
    assert!(with("copies_required: 2").contains("from 1 to the number of stores (1)"));
    assert!(with("copies_required: 0").contains("copies_required"));
    assert!(with("compression: { level: 20 }").contains("from 1 to 19"));
    assert!(with("pack_size: 1MiB").contains("from 16MiB to 64MiB"));
    assert!(with("cache: tmp").contains("absolute"));
    assert!(refusal("version: 1", "version: 2").contains("reads version 1, not 2"));
}

#[test]
fn store_addresses_are_checked_before_anything_is_opened() {
    let url = |url: &str| refusal("file:///var/lib/mainstay", url);
    assert!(url("/var/lib/mainstay").contains("write \"file:///var/lib/mainstay\""));
    assert!(url("file://relative").contains("absolute folder"));
    assert!(url("s3://bucket").contains("no store of kind \"s3\""));
    let twice = refusal("repositories:", "  other: { url: \"file:///var/lib/mainstay/\" }\nrepositories:");
    assert!(twice.contains("same place as store \"local\""));
}

#[test]
fn a_file_that_others_can_change_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mainstay.yaml");
    fs::write(&path, SHOP).unwrap();
    for (mode, allowed) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(Config::load(&path).is_ok(), allowed, "{mode:o}");
    }
    let failure = Failure::from(Config::load(&path).unwrap_err());
    assert!(failure.hint.unwrap().contains("chmod go-w"));
}

#[test]
fn a_file_that_is_no_configuration_is_refused_without_reading_it_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump.sql");
    fs::write(&path, vec![b'-'; 5 << 20]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(Config::load(&path), Err(ConfigError::TooLarge { .. })));
    assert!(matches!(Config::load(&folder.path().join("none")), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn the_schema_knows_every_section_and_allows_nothing_else() {
    let schema = schema();
    assert_eq!(schema["additionalProperties"], false);
    for section in ["version", "stores", "repositories", "apps"] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
}

/// Numbers that look random and are the same in every run.
fn numbers() -> impl FnMut(usize) -> usize {
    let mut state = 1u64;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    }
}

#[test]
fn whatever_stands_in_it_is_a_configuration_or_an_error() {
    const PIECES: [&str; 16] = [
        "&a ",
        "*a",
        "<<: *a",
        "!!binary ",
        "? ",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "|\n",
        "\u{0}",
        "\t",
        "---\n",
    ];
    let mut below = numbers();
    for _ in 0..3_000 {
        let mut text: Vec<char> = SHOP.chars().collect();
        for _ in 0..=below(5) {
            let at = below(text.len());
            let end = (at + below(40)).min(text.len());
            match below(4) {
                0 => drop(text.drain(at..end)),
                1 => {
                    let again = text[at..end].to_vec();
                    text.splice(at..at, again);
                }
                2 => text[at] = char::from(below(128) as u8),
                _ => drop(text.splice(at..at, PIECES[below(PIECES.len())].chars())),
            }
        }
        let text: String = text.into_iter().collect();
        let _ = parse(&text); // an error's kind and text are asserted there
    }
}

#[test]
fn a_few_lines_that_unfold_without_end_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let previous = format!("*a{}", n - 1);
        bomb += &format!("a{n}: &a{n} [{}]\n", vec![previous; 10].join(", "));
    }
    parse(&(bomb + SHOP)).unwrap_err();
    parse(&"[".repeat(100_000)).unwrap_err();
    parse(&format!("version: {}1", "{a: ".repeat(50_000))).unwrap_err();
}
