-- Large objects: empty, of binary bytes, of several pages, sparse; with owner, privileges and a comment.
SELECT lo_create(424201), lo_from_bytea(424202, '\x00ff5c0a0d09'), lo_from_bytea(424203, decode(repeat('00112233445566778899aabbccddeeff', 20000), 'hex'));
SELECT lo_create(424204);
SELECT lo_put(424204, 100000, 'after a hole');
SELECT lo_create(4000000001);
SELECT lo_put(4000000001, 0, 'an OID above 2^31');
GRANT SELECT ON LARGE OBJECT 424202 TO zoo_readers;
GRANT SELECT, UPDATE ON LARGE OBJECT 424203 TO zoo_app, "Zoo Röle ""quoted""";
ALTER LARGE OBJECT 424203 OWNER TO zoo_app;
COMMENT ON LARGE OBJECT 424202 IS 'a picture';
CREATE TABLE public.pictures (id int, content oid);
INSERT INTO public.pictures VALUES (1, 424202), (2, 424203);
-- Many with the same owner and privileges: newer versions of pg_dump put them into one entry.
SELECT lo_from_bytea((500000 + i)::oid, convert_to('number ' || i, 'UTF8')) FROM generate_series(1, 50) i;
DO $$ BEGIN
    FOR i IN 500001..500050 LOOP
        EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO zoo_readers, "Zoo Röle ""quoted"""', i);
    END LOOP;
END $$;
