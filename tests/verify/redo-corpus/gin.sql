-- GIN: pending list, posting trees that grow, split and shrink, entry tree, recompression of leaves.
CREATE TABLE gin_pending (id int, doc jsonb);
CREATE INDEX gin_pending_doc ON gin_pending USING gin (doc) WITH (fastupdate = on, gin_pending_list_limit = 64);
INSERT INTO gin_pending SELECT i, jsonb_build_object('id', i, 'tag', 'tag' || i % 20, 'list', jsonb_build_array(i % 3, i % 5)) FROM generate_series(1, 500) i;
DO $$ BEGIN FOR i IN 1..150 LOOP INSERT INTO gin_pending VALUES (i, jsonb_build_object('one', i, 'by', 'one')); END LOOP; END $$;
SELECT gin_clean_pending_list('gin_pending_doc');
-- a row with more keys than a page of the list holds
INSERT INTO gin_pending SELECT 0, jsonb_object_agg('key' || i, repeat('x', 40) || i) FROM generate_series(1, 400) i;
INSERT INTO gin_pending SELECT i, jsonb_build_object('id', i, 'tag', 'tag' || i % 20) FROM generate_series(501, 900) i;
DELETE FROM gin_pending WHERE id % 4 = 0;
VACUUM gin_pending;
DO $$ BEGIN FOR i IN 1..60 LOOP INSERT INTO gin_pending VALUES (i, jsonb_build_object('two', i, 'words', repeat('w', i * 20))); END LOOP; END $$;
VACUUM gin_pending;

-- every row has the same few elements: posting trees
CREATE TABLE gin_tree (id int, a int[]);
CREATE INDEX gin_tree_a ON gin_tree USING gin (a) WITH (fastupdate = off);
INSERT INTO gin_tree SELECT i, ARRAY[1, 2, 100 + i % 10] FROM generate_series(1, 4000) i;
DELETE FROM gin_tree WHERE id BETWEEN 500 AND 900 OR id % 5 = 0;
VACUUM gin_tree;
-- rows in the holes: items go into the middle of segments
INSERT INTO gin_tree SELECT i, ARRAY[1, 3, 100 + i % 10] FROM generate_series(1, 900) i;
DELETE FROM gin_tree;
VACUUM gin_tree;
INSERT INTO gin_tree SELECT i, ARRAY[i % 4] FROM generate_series(1, 500) i;

-- a tree with an inner level, built at once: its last leaf splits, whole leaves are emptied and go
CREATE TABLE gin_inner (id int, a int[]);
INSERT INTO gin_inner SELECT i, ARRAY[1] FROM generate_series(1, 50000) i;
CREATE INDEX gin_inner_a ON gin_inner USING gin (a) WITH (fastupdate = off);
INSERT INTO gin_inner SELECT i, ARRAY[1] FROM generate_series(50001, 57000) i;
DELETE FROM gin_inner WHERE id BETWEEN 2000 AND 45000;
VACUUM gin_inner;
INSERT INTO gin_inner SELECT i, ARRAY[1, 2] FROM generate_series(1, 1500) i;
DELETE FROM gin_inner WHERE id < 3000 AND id % 3 > 0;
VACUUM gin_inner;
DELETE FROM gin_inner;
VACUUM gin_inner;

-- items far apart, in no order: wide differences, leaves split in the middle
CREATE TABLE gin_sparse (id int, pad text, a int[]) WITH (fillfactor = 10);
CREATE INDEX gin_sparse_a ON gin_sparse USING gin (a) WITH (fastupdate = off);
INSERT INTO gin_sparse SELECT i, repeat('p', 200), ARRAY[1, i % 50] FROM generate_series(1, 1500) i;
DELETE FROM gin_sparse WHERE id % 2 = 0;
VACUUM gin_sparse;
INSERT INTO gin_sparse SELECT i, repeat('q', 100), ARRAY[1, i % 50] FROM generate_series(1, 1500) i;
UPDATE gin_sparse SET a = ARRAY[1, 2, 3] WHERE id % 3 = 0;
VACUUM gin_sparse;

-- entry tree: many distinct words, posting lists inside entries
CREATE TABLE gin_words (id int, t tsvector, s text);
CREATE INDEX gin_words_t ON gin_words USING gin (t) WITH (fastupdate = off);
INSERT INTO gin_words SELECT i, to_tsvector('simple', md5(i::text) || ' ' || md5((i / 7)::text) || ' common' || i % 11) FROM generate_series(1, 1500) i;
DELETE FROM gin_words WHERE id % 3 = 0;
VACUUM gin_words;
INSERT INTO gin_words SELECT i, to_tsvector('simple', repeat(md5(i::text), 6) || ' ' || md5((i % 40)::text)) FROM generate_series(1, 300) i;
INSERT INTO gin_words SELECT i, NULL FROM generate_series(1, 100) i;
UPDATE gin_words SET t = to_tsvector('simple', 'updated ' || id) WHERE id % 10 = 1;
VACUUM gin_words;
-- several columns, an index built over data
CREATE INDEX gin_words_built ON gin_words USING gin (t);
CREATE INDEX gin_two ON gin_tree USING gin (a, (ARRAY[id])) WITH (fastupdate = off);
INSERT INTO gin_tree SELECT i, ARRAY[i % 9] FROM generate_series(1, 400) i;
CREATE UNLOGGED TABLE gin_unlogged (a int[]);
CREATE INDEX ON gin_unlogged USING gin (a);

-- long keys: an entry tree of many levels, whose inner pages split too
CREATE TABLE gin_deep (id int, a text[]);
CREATE INDEX gin_deep_a ON gin_deep USING gin (a) WITH (fastupdate = off);
INSERT INTO gin_deep SELECT i, ARRAY[(SELECT string_agg(md5((i * 53 + j)::text), '') FROM generate_series(1, 55) j)] FROM generate_series(1, 150) i;
CHECKPOINT;
INSERT INTO gin_deep SELECT i, ARRAY[(SELECT string_agg(md5((i * 59 + j)::text), '') FROM generate_series(1, 55) j)] FROM generate_series(150, 260) i;
DELETE FROM gin_deep WHERE id % 3 = 0;
VACUUM gin_deep;
