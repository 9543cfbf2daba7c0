-- Triggers in each state. None of them may fire while a backup is restored: each would change what is stored.
CREATE SCHEMA trig;
CREATE TABLE trig.log (at timestamptz DEFAULT now(), what text);
CREATE TABLE trig.watched (id int PRIMARY KEY, v text, changed int DEFAULT 0);
INSERT INTO trig.watched SELECT i, 'v' || i FROM generate_series(1, 25) i;
CREATE FUNCTION trig.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO trig.log (what) VALUES (TG_NAME || ' ' || TG_OP);
    IF TG_LEVEL = 'ROW' THEN NEW.changed := NEW.changed + 1; RETURN NEW; END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER plain BEFORE INSERT OR UPDATE OF v ON trig.watched FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION trig.note();
CREATE TRIGGER disabled BEFORE INSERT ON trig.watched FOR EACH ROW EXECUTE FUNCTION trig.note();
CREATE TRIGGER on_replica BEFORE INSERT ON trig.watched FOR EACH ROW EXECUTE FUNCTION trig.note();
CREATE TRIGGER "always; and ""quoted""" BEFORE INSERT ON trig.watched FOR EACH ROW EXECUTE FUNCTION trig.note();
CREATE TRIGGER statement AFTER INSERT OR DELETE OR TRUNCATE ON trig.watched EXECUTE FUNCTION trig.note();
CREATE TRIGGER transition AFTER UPDATE ON trig.watched REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION trig.note();
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON trig.watched DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trig.note('an', 'argument; with ''quotes''');
ALTER TABLE trig.watched DISABLE TRIGGER disabled;
ALTER TABLE trig.watched ENABLE REPLICA TRIGGER on_replica;
ALTER TABLE trig.watched ENABLE ALWAYS TRIGGER "always; and ""quoted""";
COMMENT ON TRIGGER plain ON trig.watched IS 'a trigger';
CREATE VIEW trig.view AS SELECT id, v FROM trig.watched;
CREATE TRIGGER instead INSTEAD OF INSERT ON trig.view FOR EACH ROW EXECUTE FUNCTION trig.note();
CREATE TABLE trig.parted (a int) PARTITION BY RANGE (a);
CREATE TABLE trig.parted_1 PARTITION OF trig.parted FOR VALUES FROM (0) TO (10);
CREATE TABLE trig.parted_2 PARTITION OF trig.parted FOR VALUES FROM (10) TO (20);
INSERT INTO trig.parted SELECT generate_series(0, 19);
CREATE FUNCTION trig.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'nothing may be added'; END $$;
CREATE TRIGGER cloned BEFORE INSERT ON trig.parted FOR EACH ROW EXECUTE FUNCTION trig.refuse();
ALTER TABLE trig.parted_2 DISABLE TRIGGER cloned;
