-- Functions, aggregates, operators, casts, text search.
CREATE SCHEMA fn;
CREATE FUNCTION fn.add(a int, b int DEFAULT 1) RETURNS int LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 5 AS 'SELECT a + b';
CREATE FUNCTION fn.outs(IN a int, OUT b int, INOUT c text, VARIADIC d text[]) LANGUAGE plpgsql AS $body$
BEGIN b := a; c := $1 || 'x; -- $$ ' || array_length(d, 1); END $body$;
CREATE FUNCTION fn.rows() RETURNS TABLE (x int, y text) LANGUAGE sql ROWS 7 SET work_mem = '1MB' AS $$ SELECT 1, 'a' $$;
CREATE FUNCTION fn.missing_body() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT count(*) FROM there.is_no_such_table); END $$;
CREATE FUNCTION fn.poly(anyelement, anyarray) RETURNS anyelement LANGUAGE sql AS 'SELECT $1';
CREATE PROCEDURE fn.proc(a int) LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION fn.standard_body(a int) RETURNS int LANGUAGE sql
    BEGIN ATOMIC SELECT CASE WHEN a > 0 THEN 1 ELSE 2 END; SELECT a * 2; END;
COMMENT ON FUNCTION fn.add(int, int) IS 'adds';
CREATE AGGREGATE fn.total(int) (sfunc = int4pl, stype = int, initcond = '0', combinefunc = int4pl, parallel = safe);
CREATE AGGREGATE fn.joined(text) (sfunc = textcat, stype = text, initcond = E'it''s: \\');
CREATE FUNCTION fn.near(int, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT abs($1 - $2) < 3';
CREATE OPERATOR fn.=~= (FUNCTION = fn.near, LEFTARG = int, RIGHTARG = int, COMMUTATOR = OPERATOR(fn.=~=), NEGATOR = OPERATOR(fn.!=~=));
CREATE FUNCTION fn.far(int, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT NOT abs($1 - $2) < 3';
CREATE OPERATOR fn.!=~= (FUNCTION = fn.far, LEFTARG = int, RIGHTARG = int, COMMUTATOR = OPERATOR(fn.!=~=), NEGATOR = OPERATOR(fn.=~=));
COMMENT ON OPERATOR fn.=~= (int, int) IS 'near';
CREATE TYPE fn.celsius AS (degrees float8);
CREATE FUNCTION fn.to_celsius(float8) RETURNS fn.celsius LANGUAGE sql IMMUTABLE AS 'SELECT ROW($1)::fn.celsius';
CREATE CAST (float8 AS fn.celsius) WITH FUNCTION fn.to_celsius(float8) AS ASSIGNMENT;
COMMENT ON CAST (float8 AS fn.celsius) IS 'a cast';
CREATE TEXT SEARCH DICTIONARY fn.no_stops (TEMPLATE = simple, stopwords = english, accept = false);
CREATE TEXT SEARCH CONFIGURATION fn.plain (COPY = pg_catalog.english);
ALTER TEXT SEARCH CONFIGURATION fn.plain ALTER MAPPING FOR word, asciiword WITH fn.no_stops, simple;
COMMENT ON TEXT SEARCH CONFIGURATION fn.plain IS 'a configuration';
CREATE TABLE fn.uses (a int DEFAULT fn.add(1), b int GENERATED ALWAYS AS (fn.add(1, 2)) STORED, c tsvector, CHECK (a OPERATOR(fn.=~=) a));
INSERT INTO fn.uses (c) VALUES (to_tsvector('fn.plain', 'the quick brown fox'));
CREATE INDEX ON fn.uses (fn.add(a, 1));
CREATE EXTENSION IF NOT EXISTS citext SCHEMA public;
CREATE EXTENSION IF NOT EXISTS hstore SCHEMA fn;
CREATE TABLE fn.of_extensions (c public.citext PRIMARY KEY, h fn.hstore);
INSERT INTO fn.of_extensions VALUES ('MiXed', 'a=>1, "b c"=>NULL'), ('other', '');
