-- What came with PostgreSQL 16.
CREATE SCHEMA since16;
CREATE TABLE since16.stored (a text STORAGE EXTERNAL, b text STORAGE MAIN COMPRESSION pglz);
INSERT INTO since16.stored VALUES (repeat('a', 5000), repeat('b', 5000));
CREATE VIEW since16.json AS SELECT JSON_ARRAY(1, 2) AS a, JSON_OBJECT('k': 1) AS o, '[1]' IS JSON ARRAY AS is_array;
CREATE VIEW since16.any_value AS SELECT any_value(a) AS a FROM since16.stored;
