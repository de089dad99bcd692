-- SP-GiST: leaves added, moved and split, nodes added, prefixes split, vacuum with redirects.
CREATE TABLE spg_text (id int, t text);
CREATE INDEX spg_text_t ON spg_text USING spgist (t);
INSERT INTO spg_text SELECT i, md5(i::text) FROM generate_series(1, 2500) i;
-- long common prefixes that are cut shorter and shorter
INSERT INTO spg_text SELECT i, repeat('abcdefgh', 30 - i % 30) || i FROM generate_series(1, 900) i;
INSERT INTO spg_text SELECT i, repeat('z', i) FROM generate_series(1, 600) i;
INSERT INTO spg_text SELECT i, 'Z' || chr(33 + i % 90) || chr(33 + i % 89) || i FROM generate_series(1, 1800) i;
INSERT INTO spg_text SELECT i, NULL FROM generate_series(1, 600) i;
INSERT INTO spg_text SELECT i, 'same value' FROM generate_series(1, 700) i;
DELETE FROM spg_text WHERE id % 3 = 0;
VACUUM spg_text;
INSERT INTO spg_text SELECT i, md5((i * 3)::text) || 'tail' FROM generate_series(1, 1500) i;
DELETE FROM spg_text WHERE t LIKE 'a%' OR t LIKE 'z%' OR id % 2 = 0;
VACUUM spg_text;
VACUUM spg_text;
INSERT INTO spg_text SELECT i, chr(97 + i % 26) || md5(i::text) FROM generate_series(1, 1200) i;
DELETE FROM spg_text WHERE t IS NULL;
VACUUM spg_text;

-- inner tuples outgrow their page: nodes for every byte, one after the other, on pages shared with other inner tuples
CREATE TABLE spg_nodes (t text);
CREATE INDEX spg_nodes_t ON spg_nodes USING spgist (t);
INSERT INTO spg_nodes SELECT chr(33 + a) || chr(33 + b) || chr(33 + c) || repeat('q', 40) FROM generate_series(1, 60) a, generate_series(1, 12) b, generate_series(1, 6) c ORDER BY c, b, a;
INSERT INTO spg_nodes SELECT repeat('n', a * 3) || chr(33 + b) || repeat('m', 120) FROM generate_series(1, 60) a, generate_series(1, 60) b ORDER BY b, a;

-- the root is still a leaf
CREATE TABLE spg_small (id int, t text);
CREATE INDEX spg_small_t ON spg_small USING spgist (t);
INSERT INTO spg_small SELECT i, 'small' || i FROM generate_series(1, 30) i;
INSERT INTO spg_small SELECT i, NULL FROM generate_series(1, 20) i;
DELETE FROM spg_small WHERE id % 2 = 0;
VACUUM spg_small;
INSERT INTO spg_small SELECT i, 'small' || i FROM generate_series(1, 500) i;

CREATE TABLE spg_points (id int, p point, q point, r int4range, n inet, b box);
CREATE INDEX spg_points_quad ON spg_points USING spgist (p);
CREATE INDEX spg_points_kd ON spg_points USING spgist (q kd_point_ops);
CREATE INDEX spg_points_range ON spg_points USING spgist (r);
CREATE INDEX spg_points_inet ON spg_points USING spgist (n);
CREATE INDEX spg_points_box ON spg_points USING spgist (b);
INSERT INTO spg_points SELECT i, point(i * 7 % 503, i * 11 % 499), point(random() * 100, random() * 100), int4range(i, i + i % 40), ('10.' || i % 200 || '.' || i % 100 || '.' || i % 250)::inet, box(point(i, i), point(i + 2, i % 7)) FROM generate_series(1, 1500) i;
DELETE FROM spg_points WHERE id % 4 = 0;
VACUUM spg_points;
INSERT INTO spg_points SELECT i, point(5, 5), point(5, 5), 'empty', '::1', NULL FROM generate_series(1, 400) i;
UPDATE spg_points SET p = point(p[1], p[0]) WHERE id % 5 = 0;
VACUUM spg_points;
DELETE FROM spg_points WHERE id > 300;
VACUUM spg_points;
INSERT INTO spg_points SELECT i, point(random(), random()), point(i, random()), int4range(-i, i), ('2001:db8::' || to_hex(i))::inet, box(point(-i, -i), point(i, i)) FROM generate_series(1, 700) i;
CREATE INDEX spg_include ON spg_text USING spgist (t) INCLUDE (id);
INSERT INTO spg_text SELECT i, md5(i::text) FROM generate_series(9000, 9400) i;
CREATE UNLOGGED TABLE spg_unlogged (t text);
CREATE INDEX ON spg_unlogged USING spgist (t);

-- prefixes cut where the inner page is full: the lower half goes to another page, an existing or a new one
CREATE TABLE spg_prefix (t text);
CREATE INDEX spg_prefix_t ON spg_prefix USING spgist (t);
INSERT INTO spg_prefix SELECT md5(a::text) || repeat(md5(a::text), 12) || chr(64 + b) || repeat('e', 300) FROM generate_series(1, 40) a, generate_series(1, 40) b ORDER BY a, b;
INSERT INTO spg_prefix SELECT left(md5(a::text) || repeat(md5(a::text), 12), 400 - 9 * b) || chr(64 + b) || 'tail' FROM generate_series(1, 40) a, generate_series(1, 40) b ORDER BY b, a;
DELETE FROM spg_prefix WHERE t LIKE '%tail';
VACUUM spg_prefix;
-- values longer than a page: their new leaf page is split before it holds anything
INSERT INTO spg_prefix SELECT chr(33 + i) || (SELECT string_agg(md5((i * 61 + j)::text), '') FROM generate_series(1, 270 + i * 10) j) FROM generate_series(1, 30) i;
