-- Every built-in scalar type with its edge values, and text that COPY has to escape.
CREATE SCHEMA scalars;
CREATE TABLE scalars.numbers (id int, s smallint, i integer, b bigint, n numeric, ns numeric(20, 5), r real, d double precision, m money, o oid);
INSERT INTO scalars.numbers VALUES
    (1, -32768, -2147483648, -9223372036854775808, '-Infinity', -123456789012345.12345, '-Infinity', '-Infinity', '-92233720368547758.08', 0),
    (2, 32767, 2147483647, 9223372036854775807, 'Infinity', 123456789012345.12345, 'Infinity', 'Infinity', '92233720368547758.07', 4294967295),
    (3, 0, 0, 0, 'NaN', 0.00001, 'NaN', 'NaN', 0, 1),
    (4, NULL, NULL, NULL, NULL, NULL, '-0', '-0', NULL, NULL),
    (5, 1, 1, 1, ('1' || repeat('0', 1000) || '.' || repeat('3', 500))::numeric, 1, 1e-45, 5e-324, '1.10', 5),
    (6, 1, 1, 1, 0.1000, 1.5, 3.4028235e38, 1.7976931348623157e308, '-0.01', 6),
    (7, 1, 1, 1, 1e-130, 1, 0.1, 0.1, '0.005', 7),
    (8, 1, 1, 1, -0.0, 1, 16777217, 9007199254740993, '0', 8);
CREATE TABLE scalars.texts (id int, t text, v varchar(10), c char(5), n name, q "char");
INSERT INTO scalars.texts VALUES
    (1, '', '', '', '', ''),
    (2, E'\\N', E'\\N', E'\\N', E'\\N', 'x'),
    (3, E'tab\there', E'a\tb', E'\t', E'\t', E'\t'),
    (4, E'line\nfeed', E'a\nb', E'\n', E'\n', E'\n'),
    (5, E'return\rhere\r\n', E'a\rb', E'\r', E'\r', E'\r'),
    (6, E'back\\slash \\\\ \\t \\x41 \\.', E'\\', E'\\', E'\\', E'\\'),
    (7, E'\\.', E'\\.', E'\\.', E'\\.', '.'),
    (8, E'\b\f\v\x01\x1f\x7f', 'x', 'x  ', 'x', 'x'),
    (9, 'grüße ☃ 𝄞 日本', 'ü☃', 'ü', 'ü', 'u'),
    (10, NULL, NULL, NULL, NULL, NULL),
    (11, 'NULL', 'NULL', 'NULL', 'NULL', 'N'),
    (12, 'trailing space ', 'a ', 'a ', 'a ', ' '),
    (13, repeat(E'long \\ and \t wide ', 20000), 'long', 'l', 'l', 'l'),
    (14, E'\u0301combining e\u0301 versus \u00e9', 'é', 'é', 'é', 'e'),
    (15, E'"quoted", comma; semicolon', '"', ',', ';', '"');
CREATE TABLE scalars.binary (id int, b bytea, fixed bit(11), varying bit varying, u uuid);
INSERT INTO scalars.binary VALUES
    (1, (SELECT decode(string_agg(lpad(to_hex(i), 2, '0'), '' ORDER BY i), 'hex') FROM generate_series(0, 255) i), B'00000000000', B'', '00000000-0000-0000-0000-000000000000'),
    (2, '', B'11111111111', B'1', 'ffffffff-ffff-ffff-ffff-ffffffffffff'),
    (3, NULL, NULL, NULL, NULL),
    (4, decode(repeat('00ff5c0a0d09', 40000), 'hex'), B'10101010101', repeat('10', 400)::bit varying, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11');
CREATE TABLE scalars.moments (id int, d date, t time, tt timetz, ts timestamp, tz timestamptz, tz0 timestamptz(0), i interval);
INSERT INTO scalars.moments VALUES
    (1, '4713-01-01 BC', '00:00:00', '00:00:00+15:59', '4713-01-01 00:00:00 BC', '4713-01-01 00:00:00+00 BC', '1970-01-01 00:00:00+00', '-178000000 years'),
    (2, '5874897-12-31', '24:00:00', '24:00:00-15:59', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', '2038-01-19 03:14:08+00', '178000000 years 11 mons 2147483647 days 23:59:59.999999'),
    (3, 'infinity', '23:59:59.999999', '12:00:00.000001+05:30', 'infinity', 'infinity', 'infinity', '1 mon -1 days +00:00:00.000001'),
    (4, '-infinity', '12:00', '12:00+00', '-infinity', '-infinity', '-infinity', '00:00:00'),
    (5, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (6, '2000-02-29', '02:30', '02:30+02', '2024-03-31 02:30:00', '2024-03-31 02:30:00+02', '2024-10-27 02:30:00+01', '-1 years -2 mons +3 days -04:05:06.789');
CREATE TABLE scalars.documents (id int, j json, jb jsonb, p jsonpath, x xml);
INSERT INTO scalars.documents (id, j, jb, p) VALUES
    (1, '{"b": 1,   "a": [1, 2.50, null, "\u00e9\n"], "a": 2}', '{"b": 1, "a": [1, 2.50, null, "\u00e9\n"], "a": 2}', '$.a[*] ? (@ > 1)'),
    (2, '1e400', '123456789012345678901234567890.123', '$'),
    (3, '"\\N"', '"\\N \\t \\\\"', 'strict $."a b"'),
    (4, 'null', 'null', 'lax $.*'),
    (5, NULL, NULL, NULL),
    (6, ' [ ] ', '[]', '$[last]');
DO $$ BEGIN
    INSERT INTO scalars.documents (id, x) VALUES
        (7, '<a b="c">text &amp; <![CDATA[<raw>]]></a>'), (8, 'just content'), (9, E'<?pi x?><a>\n\t<b/></a>');
EXCEPTION WHEN feature_not_supported THEN
    RAISE NOTICE 'this server was built without XML: no XML values in the zoo';
END $$;
CREATE TABLE scalars.places (id int, i inet, c cidr, m macaddr, m8 macaddr8, p point, l line, s lseg, b box, pa path, po polygon, ci circle);
INSERT INTO scalars.places VALUES
    (1, '0.0.0.0', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '(-0,Infinity)', '{1,-1,0}', '[(0,0),(1,1)]', '((1,1),(0,0))', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(0,0),5>'),
    (2, '::ffff:1.2.3.4/96', '2001:db8::/32', 'ff:ff:ff:ff:ff:ff', 'ff:ff:ff:ff:ff:ff:ff:ff', '(NaN,1e-300)', '{0,1,2.5}', '[(1e10,1),(1,-1e-10)]', '((2,2),(-2,-2))', '((0,0),(1,1))', '((0,0))', '<(1,2),0>'),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE scalars.internals (id int, l pg_lsn, x xid, x8 xid8, c cid, t tid, s pg_snapshot, rc regclass, rp regprocedure, rt regtype, rr regrole, tv tsvector, tq tsquery, bo boolean);
INSERT INTO scalars.internals VALUES
    (1, '0/0', '0', '0', '0', '(0,1)', '10:20:10,14,15', 'pg_class', 'lower(text)', 'timestamp with time zone', 'zoo_owner', 'a:1A fat:2B,4C ''it''''s'':5', '''fat'' & ( ''rat'' | !''cat'':*AB )', true),
    (2, 'FFFFFFFF/FFFFFFFF', '4294967295', '18446744073709551615', '1', '(4294967295,65535)', '1:1:', 'scalars.internals', 'array_agg(anynonarray)', 'scalars.texts', 'pg_monitor', '', '''a'' <-> ''b'' <3> ''c''', false),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
