//! What the lexer must not be fooled by.

use super::*;

fn cut(script: &str) -> Vec<&str> {
    let found = statements(script.as_bytes()).unwrap();
    found.into_iter().map(|s| std::str::from_utf8(s).unwrap()).collect()
}

#[test]
fn a_semicolon_ends_a_statement_only_where_sql_says_so() {
    assert_eq!(
        cut(
            "-- one; two\nSET a = 'x;''y'; CREATE ROLE \"we;ird\"\n;\n/* ; /* ; */ ; */ ALTER ROLE b SET c TO E'\\';';;"
        ),
        ["SET a = 'x;''y'", "CREATE ROLE \"we;ird\"", "ALTER ROLE b SET c TO E'\\';'"]
    );
    assert_eq!(cut("DO $x$ a; $y$ b; $x$; SELECT $1;"), ["DO $x$ a; $y$ b; $x$", "SELECT $1"]);
    assert_eq!(
        cut("CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b); SELECT 1"),
        ["CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b)", "SELECT 1"]
    );
}

#[test]
fn no_command_of_psql_is_ever_obeyed() {
    assert_eq!(cut("\\restrict abc\n\\connect template1\nSELECT 1;\n\\unrestrict abc\n"), ["SELECT 1"]);
    let error = statements(b"SELECT 1;\n\\! rm -rf /\n").unwrap_err();
    assert_eq!(error.to_string(), "a command for psql stands among the statements: \\! rm -rf /");
    assert_eq!(cut("SELECT '\n\\! x\n'"), ["SELECT '\n\\! x\n'"]);
}

#[test]
fn a_table_gets_its_new_name_wherever_it_is_named() {
    let mut renames = Renames::default();
    renames.object((b"public", b"orders"), (b"restored", b"orders"));
    renames.object((b"public", b"Order Seq's"), (b"restored", b"Order Seq's"));
    let apply =
        |text: &str| String::from_utf8(renames.apply(text.as_bytes(), b"public").into_owned()).unwrap();
    assert_eq!(
        apply("CREATE TABLE public.orders (id int DEFAULT nextval('public.\"Order Seq''s\"'::regclass));"),
        "CREATE TABLE \"restored\".orders (id int DEFAULT nextval('\"restored\".\"Order Seq''s\"'::regclass));"
    );
    for untouched in [
        "SELECT 'public.orders is a table'",
        "SELECT $$public.orders$$, E'public.orders' -- public.orders",
        "SELECT public.orders_by_day, other.orders, x.public.orders",
    ] {
        assert_eq!(apply(untouched), untouched);
    }
    assert_eq!(
        apply("FOREIGN KEY (o) REFERENCES PUBLIC.orders(id)"),
        "FOREIGN KEY (o) REFERENCES \"restored\".orders(id)"
    );
}

#[test]
fn what_lies_in_a_renamed_schema_moves_and_what_an_extension_put_there_stays() {
    let mut renames = Renames::default();
    renames.schema(b"shop", b"shop 2");
    for name in [&b"f"[..], b"t", b"=~="] {
        renames.object((b"shop", name), (b"shop 2", name));
    }
    let apply =
        |text: &str| String::from_utf8(renames.apply(text.as_bytes(), b"public").into_owned()).unwrap();
    assert_eq!(
        apply("CREATE SCHEMA shop; GRANT USAGE ON SCHEMA shop TO shop"),
        "CREATE SCHEMA \"shop 2\"; GRANT USAGE ON SCHEMA \"shop 2\" TO shop"
    );
    assert_eq!(
        apply("SELECT shop.f(shop.t.x) OPERATOR(shop.=~=) 1, 'x'::shop.hstore"),
        "SELECT \"shop 2\".f(\"shop 2\".t.x) OPERATOR(\"shop 2\".=~=) 1, 'x'::shop.hstore"
    );
}

#[test]
fn an_index_of_a_renamed_table_is_renamed_where_it_stands_alone() {
    let mut renames = Renames::default();
    renames.object((b"public", b"orders"), (b"public", b"kept"));
    renames.object((b"public", b"orders_pkey"), (b"public", b"kept_pkey"));
    let apply =
        |text: &str| String::from_utf8(renames.apply(text.as_bytes(), b"public").into_owned()).unwrap();
    assert_eq!(
        apply(
            "ALTER TABLE ONLY public.orders ADD CONSTRAINT orders_pkey PRIMARY KEY (orders); ALTER TABLE public.orders CLUSTER ON orders_pkey;"
        ),
        "ALTER TABLE ONLY \"public\".\"kept\" ADD CONSTRAINT \"kept_pkey\" PRIMARY KEY (orders); ALTER TABLE \"public\".\"kept\" CLUSTER ON \"kept_pkey\";"
    );
}

#[test]
fn a_database_gets_its_new_name_once() {
    let named = |text: &str| String::from_utf8(name_database(text.as_bytes(), b"n\"x")).unwrap();
    assert_eq!(
        named("ALTER ROLE database IN DATABASE \"a b\" SET x TO 'database y'"),
        "ALTER ROLE database IN DATABASE \"n\"\"x\" SET x TO 'database y'"
    );
    assert_eq!(
        named("COMMENT ON DATABASE zoo IS 'DATABASE zoo'"),
        "COMMENT ON DATABASE \"n\"\"x\" IS 'DATABASE zoo'"
    );
}

proptest::proptest! {
    #[test]
    fn tokens_are_the_whole_text_whatever_it_is(text in "([a-z.\"'$;\\\\/*(){} \n-]|E'|U&'|[$]x[$]|é){0,40}") {
        let text = text.as_bytes();
        let mut at = 0;
        for (_, range) in tokens(text) {
            proptest::prop_assert!(range.start == at && range.end > at);
            at = range.end;
        }
        proptest::prop_assert_eq!(at, text.len());
        let mut renames = Renames::default();
        renames.object((b"a", b"b"), (b"c", b"d"));
        renames.apply(text, b"a");
        let _ = statements(text);
    }
}

#[test]
fn the_words_of_a_statement_end_at_its_first_name() {
    assert_eq!(leading_words(b"CREATE ROLE \"x\" WITH", 3), ["CREATE", "ROLE"]);
    assert_eq!(name_at(b"ALTER ROLE  \"a\"\"b\" SET x", 2).unwrap(), b"a\"b");
    assert_eq!(name_at(b"CREATE ROLE App;", 2).unwrap(), b"app");
}
