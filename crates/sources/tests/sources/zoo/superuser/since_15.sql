-- Publications of whole schemas need a superuser.
CREATE PUBLICATION zoo_schema FOR TABLES IN SCHEMA views, TABLE ONLY pubs.one;
-- Tablespaces within the data directory came with 15.
SET allow_in_place_tablespaces = true;
CREATE TABLESPACE zoo_space LOCATION '';
GRANT CREATE ON TABLESPACE zoo_space TO zoo_app;
CREATE TABLE su.placed (a int PRIMARY KEY USING INDEX TABLESPACE zoo_space, b text) TABLESPACE zoo_space;
INSERT INTO su.placed VALUES (1, 'here');
CREATE TABLE su.placed_parts (a int) PARTITION BY LIST (a) TABLESPACE zoo_space;
CREATE TABLE su.placed_part PARTITION OF su.placed_parts FOR VALUES IN (1);
CREATE INDEX ON su.placed_parts (a);
CREATE MATERIALIZED VIEW su.placed_view TABLESPACE zoo_space AS SELECT * FROM su.placed;
