-- What came with PostgreSQL 18.
CREATE SCHEMA since18;
CREATE TABLE since18.virtual (a int, twice int GENERATED ALWAYS AS (a * 2) VIRTUAL, stored int GENERATED ALWAYS AS (a * 3) STORED, b text);
INSERT INTO since18.virtual (a, b) SELECT i, 'b' || i FROM generate_series(1, 40) i;
CREATE TABLE since18.named_not_null (a int CONSTRAINT a_is_there NOT NULL NO INHERIT, b int);
INSERT INTO since18.named_not_null VALUES (1, NULL);
ALTER TABLE since18.named_not_null ADD CONSTRAINT b_is_there NOT NULL b NOT VALID;
CREATE TABLE since18.unenforced (a int, CONSTRAINT idle CHECK (a > 0) NOT ENFORCED);
INSERT INTO since18.unenforced VALUES (-1);
CREATE TABLE since18.prices (product int, valid daterange, price numeric, PRIMARY KEY (product, valid WITHOUT OVERLAPS));
INSERT INTO since18.prices VALUES (1, '[2020-01-01,2021-01-01)', 5), (1, '[2021-01-01,)', 6);
CREATE TABLE since18.sold (product int, valid daterange, FOREIGN KEY (product, PERIOD valid) REFERENCES since18.prices (product, PERIOD valid));
INSERT INTO since18.sold VALUES (1, '[2020-06-01,2021-06-01)');
CREATE TABLE since18.idle_reference (product int, CONSTRAINT idle FOREIGN KEY (product) REFERENCES cons.chicken NOT ENFORCED);
INSERT INTO since18.idle_reference VALUES (999);
