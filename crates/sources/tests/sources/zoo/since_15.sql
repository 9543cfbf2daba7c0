-- What came with PostgreSQL 15.
CREATE SCHEMA since15;
CREATE TABLE since15.strict_unique (a int, b int, UNIQUE NULLS NOT DISTINCT (a, b));
INSERT INTO since15.strict_unique VALUES (1, NULL), (NULL, NULL), (NULL, 1);
CREATE UNIQUE INDEX ON since15.strict_unique (b, a) NULLS NOT DISTINCT WHERE a IS NULL;
CREATE TABLE since15.parent (a int, b int, PRIMARY KEY (a, b));
CREATE TABLE since15.child (a int, b int, FOREIGN KEY (a, b) REFERENCES since15.parent ON DELETE SET NULL (b));
CREATE VIEW since15.invoker WITH (security_invoker) AS SELECT * FROM since15.parent;
CREATE PUBLICATION zoo_filtered FOR TABLE since15.parent (a, b) WHERE (a > 10);
CREATE TYPE since15.span AS RANGE (subtype = int4, multirange_type_name = since15.spans);
CREATE TABLE since15.uses (s since15.spans);
INSERT INTO since15.uses VALUES ('{[1,2),[5,7)}');
