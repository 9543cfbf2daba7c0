-- Names that need quoting, and names that only look as if they did not.
CREATE SCHEMA "Mixed Case";
CREATE SCHEMA "été";
COMMENT ON SCHEMA "Mixed Case" IS E'a comment with ''quotes'', a \\ and a\nnew line';
CREATE TABLE "Mixed Case"."Order" (
    "Id" integer PRIMARY KEY,
    "with ""quotes""" text,
    "with.dot" text DEFAULT 'a.b',
    "with 'apostrophe'" text,
    "select" text,
    "naïve ☃" text,
    "tab	in it" text,
    "line
break" text
);
INSERT INTO "Mixed Case"."Order" SELECT i, 'q' || i, 'a.b', '''', 'keyword', '☃' || i, E'\t', E'\n'
    FROM generate_series(1, 20) i;
COMMENT ON COLUMN "Mixed Case"."Order"."naïve ☃" IS 'ø';
CREATE INDEX "Index On ""Order""" ON "Mixed Case"."Order" ("with ""quotes""", lower("select"));
CREATE TABLE "été"."naïve.table" ("clé" serial PRIMARY KEY, "référence" integer REFERENCES "Mixed Case"."Order" ("Id"));
INSERT INTO "été"."naïve.table" ("référence") SELECT i FROM generate_series(1, 10) i;
CREATE TABLE "été"."table" (id int);
CREATE TABLE public."public.orders" (id int);
CREATE TABLE public."a/b\c" (id int, v text);
INSERT INTO public."a/b\c" VALUES (1, E'\\N'), (2, NULL);
CREATE TABLE public.abcdefghijklmnopqrstuvwxyz_abcdefghijklmnopqrstuvwxyz_123456789 (id int);
CREATE TABLE public."$dollar$" ("1st" int, "-- no comment" int, "/* nor this */" int);
INSERT INTO public."$dollar$" VALUES (1, 2, 3);
CREATE VIEW "Mixed Case"."View Of ""Order""" AS
    SELECT "Id", "with ""quotes""" AS "renamed ""again""" FROM "Mixed Case"."Order" WHERE "select" = 'keyword';
CREATE FUNCTION "Mixed Case"."Fn; DROP TABLE x"("arg ""one""" integer) RETURNS integer LANGUAGE sql IMMUTABLE
    AS $fn$ SELECT "arg ""one""" + 1 /* ; -- '"$ */ $fn$;
