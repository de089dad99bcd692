import { expect, test } from "bun:test";
import { Histogram } from "../../src/observability/metric-values.ts";
import { LATENCY_BUCKETS, Metrics } from "../../src/observability/metrics.ts";

test("counters, gauges and durations are rendered under their own names", async () => {
  const metrics = new Metrics();
  const requests = metrics.counter({ name: "requests_total", help: "h", labels: ["method", "code"] });
  requests.with("GET", "200").inc();
  requests.with("GET", "200").inc(2);
  metrics.gauge({ name: "depth", help: "h" }).with().set(7);
  metrics.gaugeFrom({ name: "read_at_scrape", help: "h" }, () => 42);
  metrics.duration({ name: "wait_seconds", help: "h", buckets: LATENCY_BUCKETS }).with().recordMs(2);
  metrics.histogram({ name: "sizes", help: "h", buckets: [1, 10] }).with().observe(5);
  const text = await metrics.render();
  expect(text).toContain('requests_total{method="GET",code="200"} 3');
  expect(text).toContain("\ndepth 7");
  expect(text).toContain("read_at_scrape 42");
  expect(text).toContain("wait_seconds_sum 0.002");
  expect(text).toContain('wait_seconds_bucket{le="0.001"} 0');
  expect(text).toContain('wait_seconds_bucket{le="0.002"} 1');
  expect(text).toContain('sizes_bucket{le="10"} 1');
});

test("children are cached, forgotten, and bounded", async () => {
  const metrics = new Metrics();
  const family = metrics.counter({ name: "c_total", help: "h", labels: ["t"], maxChildren: 2 });
  expect(family.with("a")).toBe(family.with("a"));
  family.with("b").inc();
  family.with("c").inc();
  family.with("d").inc();
  family.forget("a");
  const text = await metrics.render();
  expect(text).toContain('c_total{t="overflow"} 2');
  expect(text).not.toContain('t="a"');
  expect(text).not.toContain('t="d"');
});

test("two registries do not see each other, one refuses a name twice", async () => {
  const one = new Metrics();
  const two = new Metrics();
  one.counter({ name: "x_total", help: "h" });
  two.counter({ name: "x_total", help: "h" });
  expect(() => one.gauge({ name: "x_total", help: "h" })).toThrow("registered twice");
  expect(() => one.counter({ name: "y_total", help: "h", labels: ["a"] }).with()).toThrow("label values");
});

test("a histogram puts each value at the first bound that is not below it", () => {
  const bounds = [1, 2, 5, 10, 100];
  const histogram = new Histogram(bounds);
  for (const value of [0, 1, 1.5, 2, 2.01, 5, 9, 10, 100, 101]) histogram.observe(value);
  histogram.observe(3, 4);
  expect([...histogram.counts]).toEqual([2, 2, 6, 2, 1, 1]);
  expect(histogram.count).toBe(14);
  expect(histogram.sum).toBeCloseTo(0 + 1 + 1.5 + 2 + 2.01 + 5 + 9 + 10 + 100 + 101 + 12);
  const other = new Histogram(bounds);
  // As it comes from another thread.
  other.add(structuredClone({ counts: histogram.counts, sum: histogram.sum }));
  expect(other).toEqual(histogram);
});

test("what is read at a scrape goes when it is not read any more; buckets add up; labels are escaped", async () => {
  const metrics = new Metrics();
  const histogram = new Histogram([1, 2]);
  histogram.observe(0.5);
  histogram.observe(7);
  const there = [{ labels: ["a"], histogram }];
  metrics.histogramsFrom({ name: "h_seconds", help: "one\ntwo", labels: ["t"] }, () => there);
  metrics.gaugesFrom({ name: "g", help: "h", labels: ["t"] }, () => [{ labels: ['a"b\\c\nd'], value: Number.POSITIVE_INFINITY }]);
  const text = await metrics.render();
  expect(text).toContain('# HELP h_seconds one\\ntwo\n# TYPE h_seconds histogram\nh_seconds_bucket{le="1",t="a"} 1\nh_seconds_bucket{le="2",t="a"} 1\nh_seconds_bucket{le="+Inf",t="a"} 2\nh_seconds_sum{t="a"} 7.5\nh_seconds_count{t="a"} 2\n');
  expect(text).toContain('g{t="a\\"b\\\\c\\nd"} +Inf\n');
  there.pop();
  expect(await metrics.render()).not.toContain("h_seconds_");
});

test("a metric of very many is told in steps, with the same text", async () => {
  const metrics = new Metrics();
  const readings = Array.from({ length: 1201 }, (_, at) => ({ labels: [`timeline "${at}"`], value: at / 4 }));
  metrics.gaugesFrom({ name: "many", help: "two\nlines", labels: ["timeline_id"] }, () => readings);
  metrics.gaugesFrom({ name: "none", help: "nothing there", labels: ["timeline_id"] }, () => []);
  metrics.counter({ name: "one", help: "a counter" }).with().inc(3);
  let pauses = 0;
  const text = await metrics.render(() => {
    pauses++;
    return pauses % 2 === 0 ? Promise.resolve() : undefined;
  });
  expect(pauses).toBe(5);
  const lines = readings.map(({ value }, at) => `many{timeline_id="timeline \\"${at}\\""} ${value}`);
  expect(text).toBe(["# HELP many two\\nlines", "# TYPE many gauge", ...lines, "", "# HELP none nothing there", "# TYPE none gauge", "", "# HELP one a counter", "# TYPE one counter", "one 3", ""].join("\n"));
});
