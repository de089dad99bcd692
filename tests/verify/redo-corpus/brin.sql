-- BRIN: summaries inserted, updated in place and moved, the range map extended, ranges desummarized.
CREATE TABLE brin_wide (id int, t text, d date, n inet) WITH (fillfactor = 10);
CREATE INDEX brin_wide_id ON brin_wide USING brin (id) WITH (pages_per_range = 1);
CREATE INDEX brin_wide_text ON brin_wide USING brin (t) WITH (pages_per_range = 1, autosummarize = off);
INSERT INTO brin_wide SELECT i, 'm', '2024-01-01'::date + i % 300, '10.0.0.1' FROM generate_series(1, 20000) i;
-- more ranges than one page of the range map holds; it takes the place of a regular page, whose tuples move away
SELECT brin_summarize_new_values('brin_wide_id');
SELECT brin_summarize_new_values('brin_wide_text');
INSERT INTO brin_wide SELECT i, 'n', '2024-01-01', '10.0.0.2' FROM generate_series(20001, 26000) i;
SELECT brin_summarize_new_values('brin_wide_id');
SELECT brin_summarize_new_values('brin_wide_text');
SELECT brin_desummarize_range('brin_wide_id', b) FROM generate_series(0, 60, 3) b;
SELECT brin_desummarize_range('brin_wide_text', b) FROM generate_series(1, 200, 7) b;
SELECT brin_summarize_range('brin_wide_id', b) FROM generate_series(0, 30, 3) b;
-- growing bounds: the summary no longer fits where it is
UPDATE brin_wide SET t = repeat('z', 100 + id % 900) WHERE id % 97 = 0;
UPDATE brin_wide SET t = repeat('a', 1200) WHERE id % 389 = 0;
UPDATE brin_wide SET id = -id WHERE id % 50 = 0;
VACUUM brin_wide;
SELECT brin_summarize_new_values('brin_wide_text');
DELETE FROM brin_wide WHERE id > 25000;
VACUUM brin_wide;

CREATE TABLE brin_kinds (id int, r int4range, b box, f float8, u uuid);
CREATE INDEX brin_kinds_inclusion ON brin_kinds USING brin (r, b) WITH (pages_per_range = 2);
CREATE INDEX brin_kinds_multi ON brin_kinds USING brin (f float8_minmax_multi_ops, id int4_minmax_multi_ops) WITH (pages_per_range = 2);
CREATE INDEX brin_kinds_bloom ON brin_kinds USING brin (u uuid_bloom_ops) WITH (pages_per_range = 4);
INSERT INTO brin_kinds SELECT i, int4range(i, i + 10), box(point(i, i), point(i + 1, i + 1)), i / 3.0, md5(i::text)::uuid FROM generate_series(1, 3000) i;
SELECT brin_summarize_new_values('brin_kinds_inclusion');
SELECT brin_summarize_new_values('brin_kinds_multi');
SELECT brin_summarize_new_values('brin_kinds_bloom');
UPDATE brin_kinds SET f = -f, r = int4range(-id, id), u = md5((id + 1)::text)::uuid WHERE id % 11 = 0;
INSERT INTO brin_kinds SELECT i, NULL, NULL, NULL, NULL FROM generate_series(1, 500) i;
INSERT INTO brin_kinds SELECT i, 'empty', box(point(-i, 0), point(0, i)), random() * 1e9, md5(i::text)::uuid FROM generate_series(1, 900) i;
VACUUM brin_kinds;
SELECT brin_desummarize_range('brin_kinds_bloom', 0);
CREATE INDEX brin_kinds_built ON brin_kinds USING brin (id);
CREATE UNLOGGED TABLE brin_unlogged (id int);
CREATE INDEX ON brin_unlogged USING brin (id);
