-- What only a superuser can make.
CREATE SCHEMA su;
CREATE TYPE su.shell;
CREATE FUNCTION su.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Fires on every command of a restore that creates it too early, and stops it.
    RAISE EXCEPTION 'no command % while the zoo is open', TG_TAG;
END $$;
CREATE EXTENSION IF NOT EXISTS file_fdw SCHEMA su;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE su.elsewhere (line text OPTIONS (force_not_null 'true')) SERVER files OPTIONS (filename '/nonexistent/file', format 'text');
COMMENT ON FOREIGN TABLE su.elsewhere IS 'its rows are not ours';
CREATE FOREIGN DATA WRAPPER handmade OPTIONS (debug 'true');
CREATE SERVER remote TYPE 'a type' VERSION '1.0' FOREIGN DATA WRAPPER handmade OPTIONS (host 'localhost', dbname 'it''s elsewhere');
CREATE USER MAPPING FOR zoo_app SERVER remote OPTIONS (user 'x', password 'secret''s');
CREATE FOREIGN TABLE su.remote (id int) SERVER remote OPTIONS (schema_name 'public', table_name 'none');
GRANT USAGE ON FOREIGN SERVER remote TO zoo_app;
CREATE FUNCTION su.cmp(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT btint4cmp($2, $1)';
CREATE OPERATOR CLASS su.backwards FOR TYPE int4 USING btree AS
    OPERATOR 1 > , OPERATOR 2 >= , OPERATOR 3 = , OPERATOR 4 <= , OPERATOR 5 < , FUNCTION 1 su.cmp(int, int);
CREATE TABLE su.indexed (a int);
INSERT INTO su.indexed SELECT generate_series(1, 20);
CREATE INDEX ON su.indexed (a su.backwards);
CREATE OPERATOR FAMILY su.family USING hash;
CREATE CAST (xid AS int4) WITH INOUT;
CREATE TYPE su.base;
CREATE FUNCTION su.base_in(cstring) RETURNS su.base LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION su.base_out(su.base) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE su.base (INPUT = su.base_in, OUTPUT = su.base_out, INTERNALLENGTH = VARIABLE, STORAGE = extended, LIKE = text, CATEGORY = 'S');
CREATE TABLE su.of_base (b su.base, bs su.base[]);
INSERT INTO su.of_base VALUES ('a value', '{x,"y z"}');
CREATE TEXT SEARCH TEMPLATE su.template (LEXIZE = dsimple_lexize, INIT = dsimple_init);
CREATE TEXT SEARCH PARSER su.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
CREATE CONVERSION su.conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE ACCESS METHOD heap_too TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE su.of_method (a int) USING heap_too;
INSERT INTO su.of_method VALUES (1), (2);
CREATE FUNCTION su.of_c(text) RETURNS text LANGUAGE internal IMMUTABLE STRICT AS 'upper';
CREATE PUBLICATION zoo_all FOR ALL TABLES WITH (publish = 'truncate');
CREATE SUBSCRIPTION zoo_sub CONNECTION 'host=/nonexistent dbname=none password=secret' PUBLICATION p1, "P 2"
    WITH (connect = false, slot_name = NONE, enabled = false);
COMMENT ON SUBSCRIPTION zoo_sub IS 'from nowhere';
-- A table whose privileges were changed in the system schema.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text) TO zoo_app;
GRANT SELECT ON pg_catalog.pg_authid TO zoo_readers;
CREATE TABLE su.forced (tenant int);
INSERT INTO su.forced SELECT generate_series(1, 5);
ALTER TABLE su.forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY none ON su.forced USING (false);
CREATE FUNCTION su.handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE FUNCTION su.validator(oid) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_validator';
-- With functions of its own: pg_dump writes a language whose handler is an extension's as if it were an extension.
CREATE TRUSTED LANGUAGE "zoo lang" HANDLER su.handler VALIDATOR su.validator;
CREATE FUNCTION su.in_own_language() RETURNS int LANGUAGE "zoo lang" AS 'BEGIN RETURN 7; END';
COMMENT ON LANGUAGE "zoo lang" IS 'a language';
CREATE EVENT TRIGGER zoo_guard ON ddl_command_start WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE INDEX', 'COMMENT', 'GRANT')
    EXECUTE FUNCTION su.on_ddl();
ALTER EVENT TRIGGER zoo_guard DISABLE;
