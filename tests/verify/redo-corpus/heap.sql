-- Heap: inserts, deletes, updates within and across pages, HOT chains, locks, pruning, freezing, the visibility map.
CREATE TABLE heap_plain (id int, a text, b int, c text);
INSERT INTO heap_plain SELECT i, 'text ' || i, i, repeat('x', i % 50) FROM generate_series(1, 3000) i;
INSERT INTO heap_plain SELECT NULL, NULL, i, NULL FROM generate_series(1, 100) i;
VACUUM heap_plain;
-- pages are all-visible now: every kind of change clears it
DELETE FROM heap_plain WHERE id % 7 = 0;
UPDATE heap_plain SET b = b + 1 WHERE id % 11 = 0;
SELECT count(*) FROM heap_plain WHERE id < 500;
UPDATE heap_plain SET c = repeat('y', 300) WHERE id % 13 = 0;
UPDATE heap_plain SET a = a || ' suffix' WHERE id % 17 = 0;
VACUUM (FREEZE) heap_plain;
SELECT id FROM heap_plain WHERE id BETWEEN 1000 AND 1040 FOR UPDATE;
SELECT id FROM heap_plain WHERE id BETWEEN 2000 AND 2040 FOR KEY SHARE;
INSERT INTO heap_plain SELECT i, 'filled in', i, 'hole' FROM generate_series(1, 1500) i;
BEGIN;
UPDATE heap_plain SET b = 0 WHERE id BETWEEN 50 AND 90;
UPDATE heap_plain SET b = 1 WHERE id BETWEEN 60 AND 80;
DELETE FROM heap_plain WHERE id BETWEEN 70 AND 75;
SAVEPOINT inner_part;
DELETE FROM heap_plain WHERE id BETWEEN 80 AND 85;
ROLLBACK TO inner_part;
UPDATE heap_plain SET c = 'after' WHERE id BETWEEN 80 AND 82;
COMMIT;
BEGIN;
INSERT INTO heap_plain SELECT i, 'lost', i, NULL FROM generate_series(1, 300) i;
DELETE FROM heap_plain WHERE id > 2500;
ROLLBACK;
VACUUM heap_plain;
DELETE FROM heap_plain WHERE ctid > '(20,0)';
VACUUM heap_plain;
INSERT INTO heap_plain SELECT i, 'again', i, 'tail' FROM generate_series(1, 1200) i;

-- HOT chains, pruned on access and by vacuum, with and without indexes
CREATE TABLE heap_hot (id int PRIMARY KEY, n int, pad text) WITH (fillfactor = 60, autovacuum_enabled = off);
INSERT INTO heap_hot SELECT i, 0, repeat('p', 20) FROM generate_series(1, 600) i;
UPDATE heap_hot SET n = n + 1;
UPDATE heap_hot SET n = n + 1 WHERE id % 2 = 0;
SELECT sum(n) FROM heap_hot;
UPDATE heap_hot SET n = n + 1;
UPDATE heap_hot SET n = n + 1;
DELETE FROM heap_hot WHERE id % 3 = 0;
SELECT sum(n) FROM heap_hot;
VACUUM heap_hot;
UPDATE heap_hot SET n = n + 1, pad = repeat('q', id % 60) WHERE id % 4 = 1;
SELECT sum(n) FROM heap_hot;
DELETE FROM heap_hot WHERE id > 300;
VACUUM heap_hot;
INSERT INTO heap_hot SELECT i, 0, NULL FROM generate_series(301, 500) i;
VACUUM (FREEZE) heap_hot;
UPDATE heap_hot SET id = -id WHERE id % 5 = 0;
VACUUM (INDEX_CLEANUP off) heap_hot;
DELETE FROM heap_hot;
VACUUM heap_hot;

-- many tuples at once
CREATE TABLE heap_copy (a int, b text);
COPY heap_copy FROM PROGRAM 'seq 1 2000 | sed "s/$/\tline/"';
VACUUM heap_copy;
DELETE FROM heap_copy WHERE a % 3 = 0;
VACUUM heap_copy;
COPY heap_copy FROM PROGRAM 'seq 1 700 | sed "s/$/\t\\\\N/"';
BEGIN;
TRUNCATE heap_copy;
COPY heap_copy FROM PROGRAM 'seq 1 1500 | sed "s/$/\tfrozen/"' WITH (FREEZE);
COMMIT;
UPDATE heap_copy SET b = NULL WHERE a % 100 = 0;
TRUNCATE heap_copy;
COPY heap_copy FROM PROGRAM 'seq 1 300 | sed "s/$/\tfresh/"';

-- upserts, and one that loses its race: the tuple is taken back
CREATE TABLE heap_upsert (k text, v text);
CREATE FUNCTION heap_slow_key(t text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE n int := coalesce(nullif(current_setting('redo.calls', true), ''), '0')::int + 1;
BEGIN
  PERFORM set_config('redo.calls', n::text, false);
  IF n = coalesce(nullif(current_setting('redo.block_at', true), ''), '0')::int THEN
    PERFORM pg_advisory_lock(77);
    PERFORM pg_advisory_unlock(77);
  END IF;
  RETURN t;
END $$;
CREATE UNIQUE INDEX heap_upsert_k ON heap_upsert (heap_slow_key(k));
INSERT INTO heap_upsert SELECT 'k' || i % 40, 'v' || i FROM generate_series(1, 200) i ON CONFLICT (heap_slow_key(k)) DO NOTHING;
INSERT INTO heap_upsert SELECT 'k' || i, 'w' || i FROM generate_series(30, 60) i ON CONFLICT (heap_slow_key(k)) DO UPDATE SET v = excluded.v;
SELECT pg_advisory_lock(77);
-- @session b
SET redo.block_at = 2;
-- @async
INSERT INTO heap_upsert VALUES ('contended', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 400) i)) ON CONFLICT (heap_slow_key(k)) DO NOTHING;
-- @wait-lock b
-- @session a
INSERT INTO heap_upsert VALUES ('contended', 'first');
SELECT pg_advisory_unlock(77);
-- @join b

-- rows locked and updated by several transactions: multixacts, updated versions locked
CREATE TABLE heap_locks (id int PRIMARY KEY, n int, t text);
INSERT INTO heap_locks SELECT i, i, 'l' FROM generate_series(1, 60) i;
VACUUM (FREEZE) heap_locks;
BEGIN;
UPDATE heap_locks SET n = n + 1 WHERE id <= 20;
UPDATE heap_locks SET n = n + 1 WHERE id <= 10;
-- @session b
BEGIN;
SELECT count(*) FROM (SELECT id FROM heap_locks WHERE id <= 30 FOR KEY SHARE) l;
-- @session c
BEGIN;
SELECT count(*) FROM (SELECT id FROM heap_locks WHERE id BETWEEN 10 AND 40 FOR KEY SHARE) l;
SELECT count(*) FROM (SELECT id FROM heap_locks WHERE id BETWEEN 21 AND 40 FOR SHARE) l;
-- @session a
COMMIT;
-- @session b
SELECT count(*) FROM (SELECT id FROM heap_locks WHERE id BETWEEN 50 AND 60 FOR NO KEY UPDATE) l;
COMMIT;
-- @session c
COMMIT;
UPDATE heap_locks SET n = 0 WHERE id BETWEEN 35 AND 55;
DELETE FROM heap_locks WHERE id BETWEEN 5 AND 15;
-- @session a
VACUUM heap_locks;
SET vacuum_multixact_freeze_min_age = 0;
BEGIN;
SELECT count(*) FROM (SELECT id FROM heap_locks FOR KEY SHARE) l;
-- @session b
BEGIN;
SELECT count(*) FROM (SELECT id FROM heap_locks FOR KEY SHARE) l;
COMMIT;
-- @session a
SAVEPOINT again;
UPDATE heap_locks SET t = 'multi' WHERE id % 2 = 0;
COMMIT;
VACUUM (FREEZE) heap_locks;
VACUUM (FREEZE) heap_locks;

-- rows that move to another partition, whole old rows logged for logical decoding
CREATE TABLE heap_parts (id int, region int, t text) PARTITION BY LIST (region);
CREATE TABLE heap_parts_1 PARTITION OF heap_parts FOR VALUES IN (1);
CREATE TABLE heap_parts_2 PARTITION OF heap_parts FOR VALUES IN (2);
INSERT INTO heap_parts SELECT i, 1 + i % 2, 'part' FROM generate_series(1, 300) i;
UPDATE heap_parts SET region = 3 - region WHERE id % 5 = 0;
CREATE TABLE heap_full (id int, a text, b text);
ALTER TABLE heap_full REPLICA IDENTITY FULL;
INSERT INTO heap_full SELECT i, 'a' || i, repeat('b', 100) FROM generate_series(1, 200) i;
UPDATE heap_full SET a = 'changed' WHERE id % 3 = 0;
UPDATE heap_full SET b = repeat('c', 2000) WHERE id % 4 = 0;
DELETE FROM heap_full WHERE id % 5 = 0;
TRUNCATE heap_full;

-- toast, wide rows, added columns
CREATE TABLE heap_wide (id int, t text, e text);
ALTER TABLE heap_wide ALTER e SET STORAGE EXTERNAL;
INSERT INTO heap_wide SELECT i, (SELECT string_agg(md5((i * j)::text), '') FROM generate_series(1, 150) j), repeat('e', 3000) FROM generate_series(1, 60) i;
ALTER TABLE heap_wide ADD COLUMN extra int DEFAULT 5, ADD COLUMN more text;
UPDATE heap_wide SET more = t WHERE id % 2 = 0;
UPDATE heap_wide SET e = e || 'f' WHERE id % 3 = 0;
DELETE FROM heap_wide WHERE id % 4 = 0;
VACUUM heap_wide;
UPDATE heap_wide SET t = 'short';
VACUUM FULL heap_wide;
INSERT INTO heap_wide SELECT i, repeat('k', 7900), NULL FROM generate_series(1, 5) i;
