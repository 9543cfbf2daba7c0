-- An extension with configuration tables, of which only some rows are the user's. Its files (`extension/`) must be in the
-- server's extension directory.
CREATE EXTENSION zoo_extension;
INSERT INTO zoo_config (name, value, shipped) VALUES ('mine', 'kept', false);
UPDATE zoo_config SET value = 'changed' WHERE name = 'default';
INSERT INTO zoo_plain VALUES ('never captured');
SELECT nextval('zoo_config_id_seq');
