-- Roles of the zoo. They belong to the cluster, so this file may be run again for a second database.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'zoo_owner') THEN
        CREATE ROLE zoo_owner LOGIN CREATEDB;
        CREATE ROLE zoo_app LOGIN CONNECTION LIMIT 20 VALID UNTIL '2099-12-31 00:00:00+00';
        CREATE ROLE zoo_readers NOLOGIN;
        CREATE ROLE "Zoo Röle ""quoted""" NOLOGIN;
        GRANT zoo_readers TO zoo_app;
        GRANT zoo_app, zoo_readers TO zoo_owner;
        ALTER ROLE zoo_app SET search_path = 'app', 'public';
        ALTER ROLE zoo_app SET work_mem = '8MB';
        COMMENT ON ROLE zoo_readers IS 'they only look';
    END IF;
END $$;
