-- What came with PostgreSQL 17.
CREATE SCHEMA since17;
CREATE TABLE since17.parted (id int GENERATED ALWAYS AS IDENTITY, a int NOT NULL, EXCLUDE USING btree (a WITH =)) PARTITION BY RANGE (a);
CREATE TABLE since17.parted_1 PARTITION OF since17.parted FOR VALUES FROM (0) TO (100);
INSERT INTO since17.parted (a) SELECT generate_series(0, 9);
CREATE TABLE since17.intervals (i interval);
INSERT INTO since17.intervals VALUES ('infinity'), ('-infinity');
CREATE VIEW since17.json_table AS SELECT * FROM JSON_TABLE('[{"a": 1}]'::jsonb, '$[*]' COLUMNS (a int PATH '$.a')) t;
CREATE TABLE since17.maintained (a int);
GRANT MAINTAIN ON since17.maintained TO zoo_app;
