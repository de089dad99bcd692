-- B-tree: inserts, splits of every level, posting lists, dead tuples removed by inserts, pages deleted.
CREATE TABLE bt_ints (id int, k int) WITH (autovacuum_enabled = off);
CREATE INDEX bt_ints_id ON bt_ints (id);
CREATE INDEX bt_ints_k ON bt_ints (k);
INSERT INTO bt_ints SELECT i, i % 37 FROM generate_series(1, 4000) i;
INSERT INTO bt_ints SELECT i * 7919 % 10007, i % 5 FROM generate_series(1, 4000) i;
-- rows come to lie between those of existing posting lists
DELETE FROM bt_ints WHERE ctid::text ~ '[13579]\)$';
VACUUM bt_ints;
INSERT INTO bt_ints SELECT i, i % 41 FROM generate_series(1, 6000) i;
INSERT INTO bt_ints SELECT i, 3 FROM generate_series(1, 3000) i;
DELETE FROM bt_ints WHERE k = 3 AND id % 5 > 0;
VACUUM bt_ints;
INSERT INTO bt_ints SELECT i, 3 FROM generate_series(1, 2500) i;
DELETE FROM bt_ints WHERE k BETWEEN 5 AND 30;
VACUUM bt_ints;
INSERT INTO bt_ints SELECT i, i % 37 FROM generate_series(1, 4000) i;

-- a few keys to a page: three levels and more
CREATE TABLE bt_deep (id int, t text) WITH (autovacuum_enabled = off);
ALTER TABLE bt_deep ALTER t SET STORAGE PLAIN;
CREATE INDEX bt_deep_t ON bt_deep (t);
INSERT INTO bt_deep SELECT i, md5(i::text) || repeat('-', 900) FROM generate_series(1, 1200) i;
INSERT INTO bt_deep SELECT i, lpad(i::text, 8, '0') || repeat('+', 1200) FROM generate_series(1, 800) i;
INSERT INTO bt_deep SELECT i, 'z' || lpad((1000 - i)::text, 8, '0') || repeat('+', 1200) FROM generate_series(1, 500) i;
-- whole branches become empty: leaves and inner pages are deleted, in the middle and at the right end
DELETE FROM bt_deep WHERE t BETWEEN '2' AND 'c';
VACUUM bt_deep;
VACUUM bt_deep;
INSERT INTO bt_deep SELECT i, md5(i::text) || repeat('-', 900) FROM generate_series(1, 300) i;
DELETE FROM bt_deep WHERE t < 'z00000995';
VACUUM bt_deep;
VACUUM bt_deep;
-- the tree is tall and thin now: the split of the only page of a level moves the fast root
INSERT INTO bt_deep SELECT i, 'z' || lpad(i::text, 8, '0') || repeat('+', 1200) FROM generate_series(1, 400) i;
DELETE FROM bt_deep WHERE id % 2 = 0;
VACUUM bt_deep;
DELETE FROM bt_deep;
VACUUM bt_deep;
SELECT txid_current();
VACUUM bt_deep;
INSERT INTO bt_deep SELECT i, md5(i::text) || repeat('*', 1100) FROM generate_series(1, 300) i;

-- versions of rows pile up under a unique key: removed by inserts that find their page full
CREATE TABLE bt_churn (id int PRIMARY KEY, n int, pad text) WITH (autovacuum_enabled = off, fillfactor = 50);
CREATE INDEX bt_churn_n ON bt_churn (n);
CREATE INDEX bt_churn_pad ON bt_churn (pad) WITH (deduplicate_items = off);
INSERT INTO bt_churn SELECT i, i % 10, 'pad' || i % 100 FROM generate_series(1, 400) i;
DO $$ BEGIN FOR i IN 1..12 LOOP UPDATE bt_churn SET n = n + 1; COMMIT; END LOOP; END $$;
DO $$ BEGIN FOR i IN 1..300 LOOP UPDATE bt_churn SET pad = 'q' || i WHERE id = 7; COMMIT; END LOOP; END $$;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
DELETE FROM bt_churn WHERE id <= 300;
SELECT count(pad) FROM bt_churn WHERE id > 0;
SELECT count(pad) FROM bt_churn WHERE n >= 0;
SELECT count(id) FROM bt_churn WHERE pad > '';
INSERT INTO bt_churn SELECT i, i % 10, 'pad' || i % 100 FROM generate_series(1, 300) i;
INSERT INTO bt_churn SELECT i, i % 10, 'pad' || i % 100 FROM generate_series(1000, 1900) i;
RESET enable_seqscan;
RESET enable_bitmapscan;
VACUUM bt_churn;

-- many kinds of keys, builds over data
CREATE TABLE bt_kinds (a int, b text, c numeric, d timestamptz, e bool);
INSERT INTO bt_kinds SELECT i % 100, md5((i % 50)::text), i / 7.0, '2024-01-01'::timestamptz + i * interval '1 min', i % 2 = 0 FROM generate_series(1, 2500) i;
CREATE INDEX bt_kinds_abc ON bt_kinds (a, b, c);
CREATE INDEX bt_kinds_de ON bt_kinds (d DESC, e) INCLUDE (b);
CREATE INDEX bt_kinds_part ON bt_kinds (b) WHERE e;
INSERT INTO bt_kinds SELECT i % 100, md5((i % 50)::text), i / 7.0, '2024-02-01'::timestamptz + i * interval '1 min', i % 3 = 0 FROM generate_series(1, 2500) i;
INSERT INTO bt_kinds SELECT NULL, NULL, NULL, NULL, NULL FROM generate_series(1, 300) i;
UPDATE bt_kinds SET e = NOT e WHERE a % 4 = 0;
DELETE FROM bt_kinds WHERE a < 60;
VACUUM bt_kinds;
REINDEX TABLE bt_kinds;
CREATE INDEX CONCURRENTLY bt_kinds_later ON bt_kinds (c, a);
