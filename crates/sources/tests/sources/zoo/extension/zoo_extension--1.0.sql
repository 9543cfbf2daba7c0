CREATE TABLE zoo_config (id serial PRIMARY KEY, name text UNIQUE, value text, shipped boolean DEFAULT true);
INSERT INTO zoo_config (name, value) VALUES ('default', 'as shipped');
CREATE TABLE zoo_plain (v text);
SELECT pg_extension_config_dump('zoo_config', 'WHERE NOT shipped');
SELECT pg_extension_config_dump('zoo_config_id_seq', '');
