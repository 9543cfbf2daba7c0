-- Publications that a plain owner may make.
CREATE SCHEMA pubs;
CREATE TABLE pubs.one (id int PRIMARY KEY, v text);
CREATE TABLE pubs.two (id int PRIMARY KEY, v text);
CREATE PUBLICATION zoo_some FOR TABLE pubs.one, ONLY pubs.two WITH (publish = 'insert, update');
CREATE PUBLICATION zoo_none WITH (publish_via_partition_root = true);
COMMENT ON PUBLICATION zoo_some IS 'two tables';
