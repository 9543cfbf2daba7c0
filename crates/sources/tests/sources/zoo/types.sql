-- Types that users make, and arrays and ranges of everything.
CREATE SCHEMA types;
CREATE TYPE types.mood AS ENUM ('sad', 'ok', 'it''s fine', 'ünïcode');
ALTER TYPE types.mood ADD VALUE 'between' BEFORE 'ok';
CREATE TYPE types.empty_enum AS ENUM ();
CREATE DOMAIN types.positive AS integer DEFAULT 1 CONSTRAINT above_zero CHECK (VALUE > 0);
CREATE DOMAIN types.email AS text COLLATE "C" NOT NULL CHECK (VALUE ~ '@');
CREATE DOMAIN types.positives AS types.positive[];
CREATE TYPE types.address AS (street text, "House No" types.positive, tags text[]);
CREATE TYPE types.person AS (name text, home types.address, moods types.mood[]);
CREATE TYPE types.float_range AS RANGE (subtype = float8, subtype_diff = float8mi);
COMMENT ON TYPE types.mood IS 'how one feels';
COMMENT ON COLUMN types.address.street IS 'without the number';
CREATE TABLE types.users (
    id int PRIMARY KEY, mood types.mood, moods types.mood[], age types.positive, mail types.email DEFAULT 'a@b',
    home types.address, who types.person, people types.person[], list types.positives
);
INSERT INTO types.users VALUES
    (1, 'between', '{sad,"it''s fine",NULL}', 5, 'x@y', ROW('Main "St", 5', 7, '{a,"b c","",NULL,"NULL"}'),
     ROW('Ann', ROW(E'back\\slash', 1, '{}'), '{ok}'), ARRAY[ROW('Bob', NULL, NULL)::types.person], '{1,2,3}'),
    (2, NULL, '{}', NULL, 'q@w', NULL, ROW(NULL, NULL, NULL), NULL, NULL),
    (3, 'ünïcode', NULL, 1, E'tab\t@', ROW(E'\n\t\\', 2, ARRAY[E'\\N', E'a"b']), NULL, '{}', '{}');
CREATE TABLE types.arrays (id int, a int[], b text[][], c jsonb[], d bytea[], e timestamptz[], f numeric[], g bool[]);
INSERT INTO types.arrays VALUES
    (1, '{1,NULL,3}', '{{a,"b,c"},{"d\"e","f\\g"}}', ARRAY['{"a": [1]}'::jsonb, NULL], ARRAY['\x00ff'::bytea, ''::bytea], '{infinity,"2020-01-01 00:00+00"}', '{NaN,1.10,-0}', '{t,f,NULL}'),
    (2, '[-2:0]={7,8,9}', '{}', '{}', '{}', '{}', '{}', '{}'),
    (3, '[5:6][1:2]={{1,2},{3,4}}', NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE types.ranges (id int, i int4range, b int8range, n numrange, d daterange, t tsrange, tz tstzrange, f types.float_range,
    im int4multirange, tm tstzmultirange, fm types.float_multirange);
INSERT INTO types.ranges VALUES
    (1, '[1,10)', '(,5]', '(1.50,2.500]', '[2020-01-01,infinity)', '["2020-01-01 00:00","2020-01-02 00:00")', '(-infinity,"2021-01-01 00:00+00"]', '[-0,NaN]', '{[1,3),[5,9)}', '{}', '{[1.5,2.5]}'),
    (2, 'empty', '(,)', 'empty', '(,)', 'empty', NULL, '(,)', '{}', '{(,)}', '{}');
CREATE COLLATION types.own_c (provider = libc, locale = 'C');
CREATE TABLE types.collated (a text COLLATE types.own_c, b text COLLATE "POSIX", c text);
INSERT INTO types.collated VALUES ('ä', 'z', 'Z'), ('a', 'B', 'b');
CREATE INDEX ON types.collated (a, b COLLATE "C" DESC NULLS LAST);
-- Tables of a type, whose columns are the type's; a comment on a domain's constraint; a collation of ICU, where the server has it.
CREATE TABLE types.typed OF types.address (street NOT NULL, tags DEFAULT '{}');
INSERT INTO types.typed VALUES ('Main', 1, '{a}'), ('Side', NULL, DEFAULT);
COMMENT ON CONSTRAINT above_zero ON DOMAIN types.positive IS 'more than nothing';
ALTER DOMAIN types.positive ADD CONSTRAINT later CHECK (VALUE < 1000) NOT VALID;
DO $$ BEGIN
    CREATE COLLATION types.by_icu (provider = icu, locale = 'de-u-co-phonebk', deterministic = false);
    CREATE TABLE types.by_icu (a text COLLATE types.by_icu PRIMARY KEY);
    INSERT INTO types.by_icu VALUES ('Müller'), ('Mueller x'), ('Muller');
EXCEPTION WHEN feature_not_supported THEN
    RAISE NOTICE 'this server was built without ICU: no collation of it in the zoo';
END $$;
