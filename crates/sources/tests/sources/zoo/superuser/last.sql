-- Wakes the event trigger that forbids any further change, and the one that only watches.
CREATE FUNCTION su.watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER zoo_watch ON ddl_command_end EXECUTE FUNCTION su.watch();
ALTER EVENT TRIGGER zoo_watch ENABLE ALWAYS;
ALTER EVENT TRIGGER zoo_guard ENABLE;
