-- A database in another encoding than UTF-8.
SET client_encoding = 'UTF8';
CREATE TABLE "été" ("clé" int PRIMARY KEY, v text DEFAULT 'ü');
INSERT INTO "été" VALUES (1, 'grüße'), (2, 'ÿþ£'), (3, NULL);
CREATE INDEX "Index über" ON "été" (upper(v));
COMMENT ON TABLE "été" IS 'saison';
