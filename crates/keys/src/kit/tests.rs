//! What must stand on the page that is left when nothing else is.

use super::*;
use crate::{bundle::Bundle, recipient::wrap, sign::Signer};

const KEY: [u8; 32] = [0xa7; 32];

struct Fixture {
    root: Signer,
    stores: Vec<String>,
    objects: Vec<(String, Vec<u8>)>,
}

fn fixture() -> Fixture {
    let bundle = Bundle { root_seed: Some([5; 32]), ..bundle() };
    let root = bundle.root().unwrap();
    let repository = RepositoryId(*blake3::hash(&root.verify_key()).as_bytes());
    let wrap =
        |secret: &Secret, label: &str| wrap(&bundle, secret, repository, label, Time(0), &root).unwrap();
    let objects = vec![
        ("format".to_owned(), b"MSTYFMT1 and more".to_vec()),
        ("trust/0000000001".to_owned(), (0..=255).collect()),
        wrap(&Secret::Key(KEY), "ops <team> & \"co\""),
        wrap(&Secret::Passphrase(b"open sesame".to_vec()), ""),
    ];
    let stores = vec!["file:///mnt/it's here".to_owned(), "s3://acme-backup?region=eu-north-1".to_owned()];
    Fixture { root, stores, objects }
}

fn bundle() -> Bundle {
    Bundle {
        epoch: 1,
        data_private: [0xa7; 32],
        index_private: [0xa7; 32],
        domain_secret: [0xa7; 32],
        signer_seed: [0xa7; 32],
        root_seed: None,
    }
}

fn kit<'a>(fixture: &'a Fixture, key: Option<&'a Secret>) -> Kit<'a> {
    Kit {
        name: "main",
        root: fixture.root.verify_key(),
        created: Time(1_763_640_000_000_000_000),
        stores: &fixture.stores,
        objects: &fixture.objects,
        key,
    }
}

#[test]
fn a_fingerprint_is_shown_in_groups_that_people_can_compare() {
    let shown = fingerprint(&RepositoryId(std::array::from_fn(|i| i as u8)));
    assert_eq!(shown, "0001 0203 0405 0607 0809 0a0b 0c0d 0e0f\n1011 1213 1415 1617 1819 1a1b 1c1d 1e1f");
}

#[test]
fn the_text_says_what_it_is_for_where_the_copies_are_and_what_to_type() {
    let fixture = fixture();
    let text = kit(&fixture, None).text();
    let repository = kit(&fixture, None).repository();
    for part in [
        "Repository   main\n",
        fingerprint(&repository).lines().next().unwrap(),
        fingerprint(&repository).lines().nth(1).unwrap(),
        "Made         2025-11-20T12:00:00Z\n",
        "Stores       file:///mnt/it's here\n             s3://acme-backup?region=eu-north-1\n",
        "ops <team> & \"co\": key, epoch 1, since 1970-01-01\n",
        "(no label): passphrase, epoch 1, since 1970-01-01\n",
        "with the key:\n\n    stty -echo; IFS= read -r MAINSTAY_KEY; stty echo\n    export MAINSTAY_KEY\n",
        "with the passphrase:\n\n    stty -echo; IFS= read -r MAINSTAY_PASSPHRASE; stty echo\n    export MAINSTAY_PASSPHRASE\n",
        "    mainstay recover --passphrase-env MAINSTAY_PASSPHRASE \\\n        --store 'file:///mnt/it'\\''s here'\n",
        "    mainstay recover --store 'file:///mnt/it'\\''s here'\n",
        "    mainstay recover --store 's3://acme-backup?region=eu-north-1'\n",
        "Kept at: ____",
    ] {
        assert!(text.contains(part), "{part:?} not in\n{}", *text);
    }
    let widest =
        text.lines().filter(|line| !line.contains("MAINSTAY OBJECT")).map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{widest:?}");
}

#[test]
fn its_objects_come_back_byte_by_byte() {
    let fixture = fixture();
    assert_eq!(objects(&kit(&fixture, None).text()).unwrap(), fixture.objects);
    let indented: String =
        kit(&fixture, None).text().lines().map(|line| format!("  {line}  \r\n\n")).collect();
    assert_eq!(objects(&indented).unwrap(), fixture.objects);
    assert_eq!(objects("no kit").unwrap(), []);
}

#[test]
fn a_mistyped_object_is_named() {
    let fixture = fixture();
    let text = kit(&fixture, None).text();
    let mistyped = text.replace("TVNUWUZN", "TVNUWUZm");
    assert_ne!(*text, mistyped);
    assert!(objects(&mistyped).unwrap_err().starts_with("format is mistyped: its checksum is "));
    assert!(objects(&text.replace("TVNUWUZN", "TVNUWUZ!")).unwrap_err().contains("no base64"));
    let cut = &text[..text.len() - 10];
    assert!(objects(cut).unwrap_err().ends_with("has no end in this kit"));
}

#[test]
fn the_key_is_printed_only_when_asked() {
    let fixture = fixture();
    let secret = Secret::Key(KEY);
    let shown = ["a7a7", "p6en", "p6en"]; // hexadecimal, base64
    for page in [kit(&fixture, None).text(), kit(&fixture, None).html()] {
        let outside_objects: String =
            page.lines().filter(|line| line.len() < 40 || line.contains(' ')).collect();
        for part in shown {
            assert!(!outside_objects.contains(part));
        }
    }
    let line = format!("    {}\n", ["a7a7"; 8].join(" "));
    assert!(kit(&fixture, Some(&secret)).text().contains(&line.repeat(2)));
    assert_eq!(kit(&fixture, Some(&secret)).html().matches("<span>a7a7</span>").count(), 16);
    let passphrase = Secret::Passphrase(b"open sesame".to_vec());
    assert!(!kit(&fixture, Some(&passphrase)).text().contains("sesame"), "a passphrase is never printed");
}

#[test]
fn where_only_passphrases_open_it_a_passphrase_is_asked_for() {
    let mut fixture = fixture();
    fixture.objects.remove(2);
    let text = kit(&fixture, None).text();
    assert!(text.contains("read -r MAINSTAY_PASSPHRASE") && !text.contains("MAINSTAY_KEY"));
}

#[test]
fn the_page_stands_alone_and_shows_what_it_is_given_as_text() {
    let fixture = fixture();
    let page = kit(&fixture, None).html();
    assert!(page.starts_with("<!DOCTYPE html>"));
    for foreign in ["<script", "src=", "href=", "url(", "http:", "@import", "<team>"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.contains("ops &lt;team&gt; &amp; &quot;co&quot;"));
    assert_eq!(page.matches("<span></span>").count(), 16, "room for 64 digits");
    for (name, bytes) in &fixture.objects {
        assert!(page.contains(name.as_str()) && page.contains(&wrapped(bytes)[0]), "{name}");
    }
    for tag in ["dl", "div", "section", "pre", "body", "html", "h2", "p"] {
        let (opened, closed) = (
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count(),
            page.matches(&format!("</{tag}>")).count(),
        );
        assert_eq!(opened, closed, "{tag}");
    }
}
