-- GiST: updates, splits, deletes by vacuum and by inserts, pages deleted and used again.
CREATE TABLE gist_points (id int, p point);
CREATE INDEX gist_points_p ON gist_points USING gist (p);
INSERT INTO gist_points SELECT i, point(i * 7 % 1009, i * 13 % 997) FROM generate_series(1, 4000) i;
DELETE FROM gist_points WHERE id % 3 = 0;
VACUUM gist_points;
INSERT INTO gist_points SELECT i, point(random() * 1000, random() * 1000) FROM generate_series(1, 1500) i;
-- a region emptied wholly: its leaves are deleted, and used again
DELETE FROM gist_points WHERE p[0] < 700;
VACUUM gist_points;
VACUUM gist_points;
INSERT INTO gist_points SELECT i, point(i % 300, i % 311) FROM generate_series(1, 2500) i;
DELETE FROM gist_points;
VACUUM gist_points;
INSERT INTO gist_points SELECT i, point(i % 300, i % 311) FROM generate_series(1, 1500) i;

-- after a checkpoint the left half of a split comes with an image when its downlink is inserted
CREATE TABLE gist_boxes (id int, b box, r int4range);
CREATE INDEX gist_boxes_b ON gist_boxes USING gist (b);
CREATE INDEX gist_boxes_r ON gist_boxes USING gist (r);
CREATE INDEX gist_boxes_both ON gist_boxes USING gist (b, r);
INSERT INTO gist_boxes SELECT i, box(point(i % 100, i % 77), point(i % 100 + 5, i % 77 + 3)), int4range(i, i + i % 50) FROM generate_series(1, 1200) i;
CHECKPOINT;
INSERT INTO gist_boxes SELECT i, box(point(i % 100, i % 77), point(i % 100 + 5, i % 77 + 3)), int4range(i, i + i % 50) FROM generate_series(1200, 2400) i;
UPDATE gist_boxes SET r = int4range(id, id + 1000) WHERE id % 6 = 0;
VACUUM gist_boxes;
INSERT INTO gist_boxes SELECT NULL, NULL, 'empty' FROM generate_series(1, 50) i;

-- tuples an index scan found dead are removed when their page is full
CREATE TABLE gist_dead (id int, p point) WITH (autovacuum_enabled = off);
CREATE INDEX gist_dead_p ON gist_dead USING gist (p);
INSERT INTO gist_dead SELECT i, point(i, i) FROM generate_series(1, 150) i;
DELETE FROM gist_dead WHERE id <= 100;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT count(id) FROM gist_dead WHERE p <@ box(point(0, 0), point(1000, 1000));
SELECT count(id) FROM gist_dead WHERE p <@ box(point(0, 0), point(1000, 1000));
INSERT INTO gist_dead SELECT i, point(i, i) FROM generate_series(1, 400) i;
DELETE FROM gist_dead WHERE id % 2 = 0;
SELECT count(id) FROM gist_dead WHERE p <@ box(point(0, 0), point(1000, 1000));
INSERT INTO gist_dead SELECT i, point(i, i) FROM generate_series(1, 400) i;
RESET enable_seqscan;
RESET enable_bitmapscan;

-- variable-length keys: union keys grow and shrink in place, pages split in several parts
CREATE TABLE gist_text (id int, t tsvector, e int4range);
CREATE INDEX gist_text_t ON gist_text USING gist (t);
INSERT INTO gist_text SELECT i, to_tsvector('simple', (SELECT string_agg(md5((i * 31 + j)::text), ' ') FROM generate_series(1, 1 + i % 40) j)) FROM generate_series(1, 500) i;
DELETE FROM gist_text WHERE id % 2 = 1;
VACUUM gist_text;
INSERT INTO gist_text SELECT i, to_tsvector('simple', md5(i::text)) FROM generate_series(1, 800) i;
ALTER TABLE gist_text ADD EXCLUDE USING gist (e WITH &&);
INSERT INTO gist_text (id, e) SELECT i, int4range(i * 10, i * 10 + 9) FROM generate_series(1, 500) i;
CREATE INDEX gist_built ON gist_points USING gist (p) WITH (fillfactor = 50);
INSERT INTO gist_points SELECT i, point(i, -i) FROM generate_series(1, 300) i;

-- four keys a page: inner pages split while they finish the split of a child
CREATE TABLE gist_deep (id int, t tsvector);
CREATE INDEX gist_deep_t ON gist_deep USING gist (t tsvector_ops (siglen = 1600));
INSERT INTO gist_deep SELECT i, to_tsvector('simple', (SELECT string_agg(md5((i * 37 + j)::text), ' ') FROM generate_series(1, 60) j)) FROM generate_series(1, 150) i;
CHECKPOINT;
INSERT INTO gist_deep SELECT i, to_tsvector('simple', (SELECT string_agg(md5((i * 41 + j)::text), ' ') FROM generate_series(1, 60) j)) FROM generate_series(150, 300) i;
DELETE FROM gist_deep WHERE id % 4 > 0;
VACUUM gist_deep;
INSERT INTO gist_deep SELECT i, to_tsvector('simple', md5(i::text)) FROM generate_series(1, 60) i;
