-- Views of views, materialized views that need one another, views that write.
CREATE SCHEMA views;
CREATE TABLE views.sales (id int PRIMARY KEY, region text, amount numeric);
INSERT INTO views.sales SELECT i, (ARRAY['north', 'south', 'east'])[1 + i % 3], i * 1.25 FROM generate_series(1, 300) i;
-- Named so that alphabetical order is not the order of dependence.
CREATE MATERIALIZED VIEW views.z_by_region AS SELECT region, sum(amount) AS total, count(*) AS n FROM views.sales GROUP BY region;
CREATE UNIQUE INDEX ON views.z_by_region (region);
CREATE MATERIALIZED VIEW views.m_share AS SELECT region, total / (SELECT sum(total) FROM views.z_by_region) AS share FROM views.z_by_region;
CREATE VIEW views.between_them AS SELECT region, round(share, 3) AS share FROM views.m_share;
CREATE MATERIALIZED VIEW views.a_top AS SELECT region FROM views.between_them ORDER BY share DESC, region LIMIT 1;
CREATE INDEX ON views.a_top (region);
CREATE MATERIALIZED VIEW views.not_populated AS SELECT * FROM views.sales WITH NO DATA;
COMMENT ON MATERIALIZED VIEW views.a_top IS 'the best';
CREATE VIEW views.big AS SELECT * FROM views.sales WHERE amount > 100 WITH LOCAL CHECK OPTION;
CREATE VIEW views.bigger WITH (security_barrier) AS SELECT * FROM views.big WHERE amount > 200 WITH CASCADED CHECK OPTION;
CREATE RECURSIVE VIEW views.count_to_ten (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM count_to_ten WHERE n < 10;
CREATE VIEW views.with_default AS SELECT id, region FROM views.sales;
ALTER VIEW views.with_default ALTER COLUMN region SET DEFAULT 'west';
CREATE VIEW views.no_columns AS SELECT FROM views.sales;
-- A view that needs the primary key to be there (GROUP BY id), which comes after the data.
CREATE VIEW views.by_key AS SELECT id, region, sum(amount) FROM views.sales GROUP BY id;
-- Two views that refer to each other.
CREATE VIEW views.one AS SELECT 1 AS x;
CREATE VIEW views.two AS SELECT x FROM views.one;
CREATE OR REPLACE VIEW views.one AS SELECT 1 AS x WHERE NOT EXISTS (SELECT FROM views.sales WHERE false);
CREATE TABLE views.written (id int, v text);
CREATE RULE note AS ON INSERT TO views.with_default DO INSTEAD (INSERT INTO views.written VALUES (NEW.id, NEW.region); NOTIFY views_changed);
CREATE RULE never AS ON DELETE TO views.sales WHERE OLD.id < 0 DO INSTEAD NOTHING;
COMMENT ON RULE never ON views.sales IS 'a rule';
ALTER TABLE views.sales DISABLE RULE never;
