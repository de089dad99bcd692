/**
 * Prometheus metrics, one registry a role, names printed verbatim. Label children are made once and kept, up to a bound; past it all
 * further label sets share one child whose labels read `overflow`, so that a hostile or buggy label cannot eat the memory. What belongs
 * to something that comes and goes (a timeline) is counted there, and read at each scrape (`…From`): it goes when that goes.
 *
 * Durations are recorded by `recordMs` into histograms that count seconds: the caller cannot mistake the unit.
 *
 *   const requests = metrics.counter({ name: "safekeeper_…_total", help: "…", labels: ["tenant_id"] });
 *   requests.with(tenantId).inc();
 */
import { Registry } from "prom-client";
import { InvariantError } from "../kit/errors.ts";
import { Histogram, MetricValue } from "./metric-values.ts";
import { histogramSamples, type Labels, type MetricType, type Sample, ScrapedMetric, type ScrapedMetricOptions } from "./scraped-metric.ts";

export interface MetricOptions {
  readonly name: string;
  readonly help: string;
  /** Label names, in the order in which `with` takes the values. */
  readonly labels?: readonly string[];
  /** How many label sets may exist; 10,000 unless given. */
  readonly maxChildren?: number;
}

export interface HistogramOptions extends MetricOptions {
  /** Upper bounds; for a duration in seconds. */
  readonly buckets: readonly number[];
}

export interface CounterChild {
  inc(by?: number): void;
}

export interface GaugeChild {
  inc(by?: number): void;
  dec(by?: number): void;
  set(value: number): void;
}

export interface HistogramChild {
  /** @param times that many observations of the same value */
  observe(value: number, times?: number): void;
}

export interface DurationChild {
  /** @param durationMs milliseconds; kept as seconds, as Prometheus wants it */
  recordMs(durationMs: number, times?: number): void;
}

/** Of one label set. */
export interface GaugeReading {
  /** Values, in the order of the metric's label names. */
  readonly labels: readonly string[];
  readonly value: number;
}

export interface HistogramReading {
  readonly labels: readonly string[];
  readonly histogram: Histogram;
}

/** A metric with labels: children by label values. A metric without labels is its own child: `with()`. */
export interface Family<Child> {
  with(...labelValues: readonly string[]): Child;
  /** Forgets one child, when the thing it counted is gone. */
  forget(...labelValues: readonly string[]): void;
}

const DEFAULT_MAX_CHILDREN = 10_000;
/** Of those that are read: they are of things that are there. */
const DEFAULT_MAX_READINGS = 200_000;
const OVERFLOW = "overflow";
/** Of a metric, written in one step. */
const SAMPLES_PER_STEP = 500;

/** Bounds from 30 µs to 30 s, for latencies in general (seconds). */
export const LATENCY_BUCKETS: readonly number[] = [
  0.000_03, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 3, 10, 30,
];

export class Metrics {
  readonly #registry = new Registry();
  /** In the order in which they were registered. */
  readonly #scraped: ScrapedMetricOptions[] = [];

  readonly contentType: string = this.#registry.contentType;

  counter(options: MetricOptions): Family<CounterChild> {
    return this.#values(options, "counter");
  }

  gauge(options: MetricOptions): Family<GaugeChild> {
    return this.#values(options, "gauge");
  }

  /** A gauge whose value is read when it is scraped. */
  gaugeFrom(options: Omit<MetricOptions, "labels" | "maxChildren">, read: () => number): void {
    this.#register(options, "gauge", () => [{ labels: {}, value: read() }]);
  }

  /** A counter whose value is kept elsewhere and read when it is scraped. */
  counterFrom(options: Omit<MetricOptions, "labels" | "maxChildren">, read: () => number): void {
    this.#register(options, "counter", () => [{ labels: {}, value: read() }]);
  }

  /** Gauges with labels, all read when they are scraped: what is not read any more is gone. */
  gaugesFrom(options: MetricOptions, read: () => readonly GaugeReading[]): void {
    this.#register(options, "gauge", () => readingSamples(options, read()));
  }

  /** Counters whose totals are kept elsewhere, read when they are scraped. */
  countersFrom(options: MetricOptions, read: () => readonly GaugeReading[]): void {
    this.#register(options, "counter", () => readingSamples(options, read()));
  }

  /** The same of histograms. */
  histogramsFrom(options: MetricOptions, read: () => readonly HistogramReading[]): void {
    const { name, labels: names = [], maxChildren = DEFAULT_MAX_READINGS } = options;
    this.#register(options, "histogram", () => read().slice(0, maxChildren).flatMap(({ labels, histogram }) => histogramSamples(name, labelsOf(names, labels), histogram)));
  }

  /** Of counts or sizes. For durations use `duration`. */
  histogram(options: HistogramOptions): Family<HistogramChild> {
    return this.#histograms(options);
  }

  /** Of durations: the name should end in `_seconds`, the bounds are seconds, values come in milliseconds. */
  duration(options: HistogramOptions): Family<DurationChild> {
    return this.#histograms(options);
  }

  /** The text exposition format. @param pause asked between two steps: a metric may tell of ten thousand timelines. What it returns is waited for */
  async render(pause?: () => Promise<void> | undefined): Promise<string> {
    const texts: string[] = [];
    for (const metric of this.#scraped) texts.push(await textOf(metric, pause));
    return texts.join("\n");
  }

  #values(options: MetricOptions, type: "counter" | "gauge"): LabelFamily<MetricValue> {
    const family = new LabelFamily(options, () => new MetricValue());
    this.#register(options, type, () => family.children().map(({ labels, child }) => ({ labels, value: child.value })));
    return family;
  }

  #histograms(options: HistogramOptions): LabelFamily<Histogram> {
    const bounds = [...options.buckets];
    const family = new LabelFamily(options, () => new Histogram(bounds));
    this.#register(options, "histogram", () => family.children().flatMap(({ labels, child }) => histogramSamples(options.name, labels, child)));
    return family;
  }

  #register({ name, help }: Pick<MetricOptions, "name" | "help">, type: MetricType, read: () => Sample[]): void {
    if (this.#registry.getSingleMetric(name) !== undefined) throw new InvariantError(`metric ${name} is registered twice`);
    const metric = { name, help, type, read };
    this.#registry.registerMetric(new ScrapedMetric(metric));
    this.#scraped.push(metric);
  }
}

/** The library's text of one metric, made of some samples at a time. Ends with a line's end. */
async function textOf({ name, help, type, read }: ScrapedMetricOptions, pause?: () => Promise<void> | undefined): Promise<string> {
  const samples = read();
  let text = "";
  for (let at = 0; at === 0 || at < samples.length; at += SAMPLES_PER_STEP) {
    const some = new Registry();
    some.registerMetric(new ScrapedMetric({ name, help, type, read: () => samples.slice(at, at + SAMPLES_PER_STEP) }));
    const lines = await some.metrics();
    // HELP and TYPE stand before the first.
    text += at === 0 ? lines : lines.slice(lines.indexOf("\n", lines.indexOf("\n") + 1) + 1);
    const wait = pause?.();
    if (wait !== undefined) await wait;
  }
  return text;
}

function readingSamples({ labels: names = [], maxChildren = DEFAULT_MAX_READINGS }: MetricOptions, readings: readonly GaugeReading[]): Sample[] {
  return readings.slice(0, maxChildren).map(({ labels, value }) => ({ labels: labelsOf(names, labels), value }));
}

function labelsOf(names: readonly string[], values: readonly string[]): Labels {
  const labels: Labels = {};
  for (let i = 0; i < names.length; i++) labels[names[i]] = values[i];
  return labels;
}

class LabelFamily<Child> implements Family<Child> {
  readonly #children = new Map<string, { readonly labels: Labels; readonly child: Child }>();
  readonly #labels: readonly string[];
  readonly #maxChildren: number;
  readonly #make: () => Child;

  constructor(options: MetricOptions, make: () => Child) {
    this.#labels = options.labels ?? [];
    this.#maxChildren = options.maxChildren ?? DEFAULT_MAX_CHILDREN;
    this.#make = make;
    // Scraped as 0 before anything happened, as a metric without labels should be.
    if (this.#labels.length === 0) this.with();
  }

  with(...labelValues: readonly string[]): Child {
    const key = labelValues.length === 1 ? labelValues[0] : labelValues.join("\u0000");
    const known = this.#children.get(key);
    if (known !== undefined) return known.child;
    if (labelValues.length !== this.#labels.length) {
      throw new InvariantError(`${labelValues.length} label values given, the labels are ${this.#labels.join(", ")}`);
    }
    if (this.#labels.length > 0 && this.#children.size >= this.#maxChildren && labelValues[0] !== OVERFLOW) {
      return this.with(...labelValues.map(() => OVERFLOW));
    }
    const child = this.#make();
    this.#children.set(key, { labels: labelsOf(this.#labels, labelValues), child });
    return child;
  }

  forget(...labelValues: readonly string[]): void {
    this.#children.delete(labelValues.join("\u0000"));
  }

  children(): { readonly labels: Labels; readonly child: Child }[] {
    return [...this.#children.values()];
  }
}
