-- Hash indexes: inserts, overflow pages, splits, squeezing, vacuum, dead tuples removed by inserts.
CREATE TABLE hash_grow (k int, v text);
CREATE INDEX hash_grow_k ON hash_grow USING hash (k);
INSERT INTO hash_grow SELECT i, 'v' || i FROM generate_series(1, 4000) i;
-- one key over and over fills a chain of overflow pages, which later splits have to move
INSERT INTO hash_grow SELECT 7, 'same' FROM generate_series(1, 1500);
INSERT INTO hash_grow SELECT i * 13 % 97, 'few' FROM generate_series(1, 2500) i;
INSERT INTO hash_grow SELECT i, 'more' FROM generate_series(10001, 13000) i;
-- thinning out: vacuum deletes, moves tuples between pages and frees overflow pages
DELETE FROM hash_grow WHERE ctid::text LIKE '%3)' OR ctid::text LIKE '%5)';
VACUUM hash_grow;
DELETE FROM hash_grow WHERE k = 7 AND random() < 0.6;
VACUUM hash_grow;
INSERT INTO hash_grow SELECT 7, 'again' FROM generate_series(1, 900);
DELETE FROM hash_grow WHERE k < 97;
VACUUM hash_grow;
INSERT INTO hash_grow SELECT 11, 'reuse' FROM generate_series(1, 1200);

-- chains whose first pages have room left: tuples move into several pages, the freed page is not next to them
CREATE TABLE hash_chain (k int, n int);
CREATE INDEX hash_chain_k ON hash_chain USING hash (k) WITH (fillfactor = 20);
INSERT INTO hash_chain SELECT 1 + i % 3, i FROM generate_series(1, 5000) i;
DELETE FROM hash_chain WHERE n % 7 IN (0, 3) AND n < 4000;
VACUUM hash_chain;
DELETE FROM hash_chain WHERE n % 2 = 0;
VACUUM hash_chain;
DELETE FROM hash_chain WHERE n > 1000;
VACUUM hash_chain;

-- tuples an index scan found dead are removed when their page is full
CREATE TABLE hash_dead (k int, n int) WITH (autovacuum_enabled = off);
CREATE INDEX hash_dead_k ON hash_dead USING hash (k);
INSERT INTO hash_dead SELECT 42, i FROM generate_series(1, 390) i;
DELETE FROM hash_dead WHERE n <= 200;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT count(n) FROM hash_dead WHERE k = 42;
SELECT count(n) FROM hash_dead WHERE k = 42;
INSERT INTO hash_dead SELECT 42, i FROM generate_series(1000, 1300) i;
RESET enable_seqscan;
RESET enable_bitmapscan;
UPDATE hash_dead SET n = n + 1;
VACUUM hash_dead;

-- other key types, an unlogged index' init fork, a rolled back load, a build over data
CREATE TABLE hash_kinds (t text, u uuid, d timestamptz);
CREATE INDEX ON hash_kinds USING hash (t);
CREATE INDEX ON hash_kinds USING hash (u);
CREATE INDEX ON hash_kinds USING hash (d);
INSERT INTO hash_kinds SELECT md5(i::text), md5(i::text)::uuid, '2024-01-01'::timestamptz + i * interval '1 s' FROM generate_series(1, 1500) i;
BEGIN;
INSERT INTO hash_kinds SELECT md5(i::text), md5(i::text)::uuid, now() FROM generate_series(2000, 2600) i;
ROLLBACK;
VACUUM hash_kinds;
CREATE UNLOGGED TABLE hash_unlogged (k int);
CREATE INDEX ON hash_unlogged USING hash (k);
CREATE INDEX ON hash_kinds USING hash (md5(t));
REINDEX INDEX hash_grow_k;
