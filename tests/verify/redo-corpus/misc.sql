-- Sequences, generic records, catalogs, whole databases, compressed images.
CREATE EXTENSION bloom;
CREATE TABLE misc_bloom (a int, b int, c text);
CREATE INDEX misc_bloom_abc ON misc_bloom USING bloom (a, b, c);
INSERT INTO misc_bloom SELECT i, i % 10, 'c' || i FROM generate_series(1, 1500) i;
DELETE FROM misc_bloom WHERE a % 3 = 0;
VACUUM misc_bloom;
INSERT INTO misc_bloom SELECT i, i % 10, 'c' || i FROM generate_series(1, 1500) i;

CREATE SEQUENCE misc_seq;
SELECT nextval('misc_seq') FROM generate_series(1, 200);
SELECT setval('misc_seq', 5000);
ALTER SEQUENCE misc_seq INCREMENT BY 3 CACHE 10;
SELECT nextval('misc_seq');
CREATE TABLE misc_serial (id serial, big bigint GENERATED ALWAYS AS IDENTITY, t text);
INSERT INTO misc_serial (t) SELECT 's' FROM generate_series(1, 300);
TRUNCATE misc_serial RESTART IDENTITY;

DO $$ BEGIN FOR i IN 1..30 LOOP EXECUTE format('CREATE TABLE misc_many_%s (a int PRIMARY KEY, b text DEFAULT %L, c int CHECK (c > 0))', i, 'x'); END LOOP; END $$;
DO $$ BEGIN FOR i IN 1..30 LOOP EXECUTE format('ALTER TABLE misc_many_%s ADD d timestamptz DEFAULT now(), DROP c', i); END LOOP; END $$;
CREATE VIEW misc_view AS SELECT * FROM misc_many_1;
CREATE MATERIALIZED VIEW misc_mat AS SELECT i, md5(i::text) AS m FROM generate_series(1, 500) i;
CREATE UNIQUE INDEX ON misc_mat (i);
REFRESH MATERIALIZED VIEW CONCURRENTLY misc_mat;
REFRESH MATERIALIZED VIEW misc_mat;
DO $$ BEGIN FOR i IN 2..30 LOOP EXECUTE format('DROP TABLE misc_many_%s', i); END LOOP; END $$;
ANALYZE;
VACUUM pg_class;
VACUUM pg_attribute;
VACUUM FULL pg_description;
CLUSTER misc_mat USING misc_mat_i_idx;
COMMENT ON TABLE misc_many_1 IS 'a comment';
GRANT SELECT ON misc_many_1 TO PUBLIC;
SELECT lo_put(lo_create(4711), 0, decode(repeat('0123456789abcdef', 2000), 'hex'));
SELECT lo_put(4711, 1000, '\x00');
SELECT lo_unlink(4711);
BEGIN;
INSERT INTO misc_serial (t) SELECT 'prepared' FROM generate_series(1, 50);
PREPARE TRANSACTION 'two phases';
COMMIT PREPARED 'two phases';
SELECT pg_logical_emit_message(true, 'redo', 'a message');

-- databases: by copying files, and from 15 on by logging every page
-- @until 14
CREATE DATABASE misc_copy;
-- @from 15
CREATE DATABASE misc_copy STRATEGY file_copy;
-- @from 15
CREATE DATABASE misc_logged STRATEGY wal_log;
DROP DATABASE misc_copy;

-- images compressed in every way the server was built with
CREATE TABLE misc_images (id int, t text);
CREATE INDEX misc_images_t ON misc_images (t);
INSERT INTO misc_images SELECT i, md5(i::text) FROM generate_series(1, 1500) i;
CHECKPOINT;
SET wal_compression = on;
UPDATE misc_images SET t = t || 'p' WHERE id % 9 = 0;
CHECKPOINT;
DO $$ BEGIN PERFORM set_config('wal_compression', 'lz4', false); EXCEPTION WHEN OTHERS THEN NULL; END $$;
UPDATE misc_images SET t = t || 'l' WHERE id % 9 = 1;
CHECKPOINT;
DO $$ BEGIN PERFORM set_config('wal_compression', 'zstd', false); EXCEPTION WHEN OTHERS THEN NULL; END $$;
UPDATE misc_images SET t = t || 'z' WHERE id % 9 = 2;
SET wal_compression = off;
CHECKPOINT;
SELECT count(*) FROM misc_images;
