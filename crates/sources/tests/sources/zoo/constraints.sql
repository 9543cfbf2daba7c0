-- Constraints and indexes of every kind, among them such as no load order satisfies.
CREATE EXTENSION IF NOT EXISTS btree_gist SCHEMA public;
CREATE SCHEMA cons;
CREATE TABLE cons.chicken (id int PRIMARY KEY, egg int NOT NULL);
CREATE TABLE cons.egg (id int PRIMARY KEY, chicken int NOT NULL REFERENCES cons.chicken DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE cons.chicken ADD CONSTRAINT "hatched from" FOREIGN KEY (egg) REFERENCES cons.egg DEFERRABLE INITIALLY IMMEDIATE;
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO cons.chicken SELECT i, i FROM generate_series(1, 5) i;
INSERT INTO cons.egg SELECT i, i FROM generate_series(1, 5) i;
COMMIT;
CREATE TABLE cons.tree (id int PRIMARY KEY, parent int REFERENCES cons.tree ON DELETE CASCADE ON UPDATE SET NULL);
INSERT INTO cons.tree VALUES (3, NULL), (2, 3), (1, 2);
CREATE TABLE cons.composite (a int, b text, c int, UNIQUE (a, b), UNIQUE (c) INCLUDE (b) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO cons.composite VALUES (1, 'x', 1), (NULL, 'x', 2), (NULL, 'x', 3);
CREATE TABLE cons.refers (a int, b text, FOREIGN KEY (a, b) REFERENCES cons.composite (a, b) MATCH FULL);
INSERT INTO cons.refers VALUES (1, 'x'), (NULL, NULL);
CREATE TABLE cons.booking (
    room int, during tstzrange, cancelled boolean DEFAULT false, at point,
    CONSTRAINT no_double_booking EXCLUDE USING gist (room WITH =, during WITH &&) WHERE (NOT cancelled)
);
INSERT INTO cons.booking VALUES (1, '[2020-01-01 00:00+00,2020-01-02 00:00+00)'), (1, '[2020-01-02 00:00+00,2020-01-03 00:00+00)');
CREATE TABLE cons.checked (a int CHECK (a > 0), b int, CONSTRAINT "a < b" CHECK (a < b) NO INHERIT, CONSTRAINT later CHECK (b < 100));
INSERT INTO cons.checked VALUES (1, 2), (NULL, 3);
ALTER TABLE cons.checked DROP CONSTRAINT later;
INSERT INTO cons.checked VALUES (5, 500);
ALTER TABLE cons.checked ADD CONSTRAINT later CHECK (b < 100) NOT VALID;
CREATE TABLE cons.dangling (tree int);
INSERT INTO cons.dangling VALUES (999);
ALTER TABLE cons.dangling ADD CONSTRAINT dangling_tree_fkey FOREIGN KEY (tree) REFERENCES cons.tree NOT VALID;
-- A check that reads another table: pg_dump knows nothing of it, and rows may come before those they need.
CREATE TABLE cons.a_limit (most int);
INSERT INTO cons.a_limit VALUES (10);
CREATE FUNCTION cons.within(n int) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT n <= (SELECT max(most) FROM cons.a_limit)';
CREATE TABLE cons.within_limit (n int, CONSTRAINT n_within CHECK (cons.within(n) IS NOT FALSE));
INSERT INTO cons.within_limit SELECT generate_series(1, 10);
CREATE TABLE cons.indexed (id int, t text, j jsonb, tags text[], p point, n numeric);
INSERT INTO cons.indexed SELECT i, md5(i::text), jsonb_build_object('k', i), ARRAY[i::text, 'x'], point(i, i), i FROM generate_series(1, 200) i;
CREATE UNIQUE INDEX ON cons.indexed (id DESC NULLS LAST) INCLUDE (t) WITH (fillfactor = 60);
CREATE INDEX partial ON cons.indexed (t text_pattern_ops) WHERE id > 10 AND t <> 'a;b';
CREATE INDEX expression ON cons.indexed ((j ->> 'k'), upper(t) COLLATE "C");
CREATE INDEX gin ON cons.indexed USING gin (tags, j jsonb_path_ops);
CREATE INDEX gist ON cons.indexed USING gist (p) WITH (buffering = on);
CREATE INDEX spgist ON cons.indexed USING spgist (t);
CREATE INDEX hash ON cons.indexed USING hash (t);
CREATE INDEX brin ON cons.indexed USING brin (n) WITH (pages_per_range = 4);
ALTER TABLE cons.indexed CLUSTER ON gist;
ALTER INDEX cons.expression ALTER COLUMN 1 SET STATISTICS 300;
COMMENT ON INDEX cons.gin IS 'an index';
CREATE TABLE cons.by_index (id int NOT NULL, v text);
CREATE UNIQUE INDEX by_index_id ON cons.by_index (id);
ALTER TABLE cons.by_index REPLICA IDENTITY USING INDEX by_index_id;
COMMENT ON CONSTRAINT "a < b" ON cons.checked IS 'compare';
CREATE STATISTICS cons.related (ndistinct, dependencies, mcv) ON id, t FROM cons.indexed;
CREATE STATISTICS cons.of_expression ON (id % 10), (upper(t)) FROM cons.indexed;
ALTER STATISTICS cons.related SET STATISTICS 50;
COMMENT ON STATISTICS cons.related IS 'columns that go together';
