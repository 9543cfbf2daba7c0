//! A staging copy: masked before anybody can open it under its name.

use crate::databases::Shop;
use std::fs;

/// The application with a mask.
fn masked(shop: &Shop, mask: &str) {
    let text = fs::read_to_string(shop.place.at("mainstay.yaml")).unwrap();
    let text = text.split("    masks:").next().unwrap();
    shop.place.write("mainstay.yaml", &format!("{text}    masks: {{ staging: {{ {mask} }} }}\n"));
}

fn databases(shop: &Shop) -> String {
    let sql = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname LIKE '%staging%' OR datname LIKE '%unmasked%'";
    shop.server.connect("postgres").unwrap().query_text(sql).unwrap().unwrap_or_default()
}

#[test]
fn a_staging_copy_has_nothing_of_what_is_masked_and_the_original_all_of_it() {
    let shop = Shop::new();
    shop.server
        .connect("shop")
        .unwrap()
        .execute(
            "CREATE TABLE people (id int PRIMARY KEY, mail varchar(30) UNIQUE, phone text, born date, note text, ref uuid);
             INSERT INTO people SELECT n, 'person' || n || '@real.example', '0' || n, '2000-01-01', 'secret ' || n, gen_random_uuid() FROM generate_series(1, 300) n;
             UPDATE people SET phone = NULL WHERE id = 7;
             CREATE TABLE seen (mail text); CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.seen VALUES (OLD.mail); RETURN NEW; END';
             CREATE TRIGGER spy BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION spy();
             CREATE MATERIALIZED VIEW mails AS SELECT mail FROM people; CREATE MATERIALIZED VIEW first_mail AS SELECT min(mail) AS mail FROM mails",
        )
        .unwrap();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    masked(
        &shop,
        "public.people.mail: email, public.people.phone: hash, public.people.born: \"date_trunc('year', born)\", public.people.note: \"fixed:it's gone\", public.people.ref: hash, public.customers.name: hash",
    );
    let ran = shop.run(&["restore", "shop", "--to-database", "staging", "--mask", "staging", "--yes"]);
    assert!(
        ran.code == 0
            && ran.stdout.contains("masked: born, mail, note, phone, ref of public.people (300 rows)"),
        "{}",
        ran.all()
    );
    assert_eq!(databases(&shop), "staging");
    let mut copy = shop.server.connect("staging").unwrap();
    let mut ask = |sql: &str| copy.query_text(sql).unwrap().unwrap_or_default();
    assert_eq!(
        ask(
            "SELECT count(DISTINCT mail) || ' ' || count(*) FILTER (WHERE mail LIKE '%@example.invalid') FROM people"
        ),
        "300 300"
    );
    assert_eq!(
        ask(
            "SELECT count(*) || ' ' || count(phone) || ' ' || min(note) FROM people WHERE length(phone) = 64 OR id = 7"
        ),
        "300 299 it's gone"
    );
    assert_eq!(ask("SELECT count(*) FROM seen"), "0", "triggers saw nothing");
    assert_eq!(ask("SELECT count(*) FROM first_mail WHERE mail LIKE '%example.invalid'"), "1");
    // Nor is it in old row versions, or in what the planner knows.
    assert_eq!(
        ask(
            "SELECT count(*) FROM pg_stats WHERE (most_common_vals::text || histogram_bounds::text) LIKE '%real.example%'"
        ),
        "0"
    );
    let file = ask("CHECKPOINT; SELECT pg_relation_filepath('people')");
    let bytes = fs::read(shop.server.data_directory().join(file)).unwrap();
    assert!(!bytes.windows(12).any(|window| window == b"real.example"), "the table's file");
    let real = shop
        .server
        .connect("shop")
        .unwrap()
        .query_text("SELECT count(*) FROM people WHERE mail LIKE '%real.example'")
        .unwrap();
    assert_eq!(real.as_deref(), Some("300"));
}

#[test]
fn a_copy_that_cannot_be_masked_is_no_copy() {
    let shop = Shop::new();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    let restore = || shop.run(&["restore", "shop", "--to-database", "staging", "--mask", "staging", "--yes"]);
    for (mask, code, says) in [
        (
            "public.customers.email: hash",
            13,
            "column public.customers.email of the mask is not in this recovery point",
        ),
        ("public.customers.name: \"null\"", 13, "public.customers.name may not be null"),
        ("public.orders.total: hash", 13, "is numeric, of which there is no hash"),
        ("public.orders.customer: \"customer + 1\"", 13, "is part of the foreign key orders_customer_fkey"),
        ("public.customers.name: \"no_such_function(name)\"", 1, "masking public.customers"),
        ("customers.name: hash", 2, "names no column"),
    ] {
        masked(&shop, mask);
        let ran = restore();
        assert!(ran.code == code && ran.stderr.contains(says), "{mask}\n{}", ran.all());
        assert_eq!(databases(&shop), "", "{mask}");
    }
    let ran = shop.run(&["restore", "shop", "--to-database", "staging", "--mask", "nobody"]);
    assert!(ran.code == 2, "{}", ran.all());
}
