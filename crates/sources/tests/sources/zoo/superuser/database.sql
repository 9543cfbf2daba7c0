-- Properties of the database itself. Run in it; `zoo` is its name as psql's variable.
ALTER DATABASE :"zoo" SET statement_timeout = '5min';
ALTER DATABASE :"zoo" SET "app.tenant" = '7';
ALTER ROLE zoo_app IN DATABASE :"zoo" SET work_mem = '9MB';
ALTER DATABASE :"zoo" CONNECTION LIMIT 50;
REVOKE CONNECT ON DATABASE :"zoo" FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE :"zoo" TO zoo_app;
COMMENT ON DATABASE :"zoo" IS 'all kinds of animals';
