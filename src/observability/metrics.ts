/**
 * Prometheus metrics, one registry a role, names printed verbatim. Label children are made once and kept (a label
 * lookup in the library costs more than the increment), up to a bound; past it all further label sets share one
 * child whose labels read `overflow`, so that a hostile or buggy label cannot eat the memory.
 *
 * Durations are recorded by `recordMs` into histograms that count seconds: the caller cannot mistake the unit.
 *
 *   const requests = metrics.counter({ name: "safekeeper_…_total", help: "…", labels: ["tenant_id"] });
 *   requests.with(tenantId).inc();
 */
import { Counter as PromCounter, Gauge as PromGauge, Histogram as PromHistogram, Registry } from "prom-client";
import { InvariantError } from "../kit/errors.ts";

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
  observe(value: number): void;
}

export interface DurationChild {
  /** @param durationMs milliseconds; kept as seconds, as Prometheus wants it */
  recordMs(durationMs: number): void;
}

/** Of one label set. */
export interface GaugeReading {
  /** Values, in the order of the metric's label names. */
  readonly labels: readonly string[];
  readonly value: number;
}

/** A metric with labels: children by label values. A metric without labels is its own child: `with()`. */
export interface Family<Child> {
  with(...labelValues: readonly string[]): Child;
  /** Forgets one child, when the thing it counted is gone. */
  forget(...labelValues: readonly string[]): void;
}

const DEFAULT_MAX_CHILDREN = 10_000;
const OVERFLOW = "overflow";

/** Bounds from 30 µs to 30 s, for latencies in general (seconds). */
export const LATENCY_BUCKETS: readonly number[] = [
  0.000_03, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 3, 10, 30,
];

export class Metrics {
  readonly #registry = new Registry();

  readonly contentType: string = this.#registry.contentType;

  counter(options: MetricOptions): Family<CounterChild> {
    const metric = new PromCounter(this.#config(options));
    return new LabelFamily(options, { make: (labels) => metric.labels(labels), remove: (labels) => metric.remove(labels) });
  }

  gauge(options: MetricOptions): Family<GaugeChild> {
    const metric = new PromGauge(this.#config(options));
    return new LabelFamily(options, { make: (labels) => metric.labels(labels), remove: (labels) => metric.remove(labels) });
  }

  /** A gauge whose value is read when it is scraped. */
  gaugeFrom(options: Omit<MetricOptions, "labels" | "maxChildren">, read: () => number): void {
    const metric: PromGauge = new PromGauge({ ...this.#config(options), collect: () => metric.set(read()) });
  }

  /** A counter whose value is kept elsewhere and read when it is scraped. */
  counterFrom(options: Omit<MetricOptions, "labels" | "maxChildren">, read: () => number): void {
    const metric: PromCounter = new PromCounter({
      ...this.#config(options),
      collect: () => {
        metric.reset();
        metric.inc(read());
      },
    });
  }

  /** Gauges with labels, all read when they are scraped: what is not read any more is gone. */
  gaugesFrom(options: MetricOptions, read: () => readonly GaugeReading[]): void {
    const { labels = [], maxChildren = DEFAULT_MAX_CHILDREN } = options;
    const metric: PromGauge = new PromGauge({
      ...this.#config(options),
      collect: () => {
        metric.reset();
        for (const reading of read().slice(0, maxChildren)) metric.set(Object.fromEntries(labels.map((label, index) => [label, reading.labels[index]])), reading.value);
      },
    });
  }

  /** Counters whose totals are kept elsewhere, read when they are scraped. */
  countersFrom(options: MetricOptions, read: () => readonly GaugeReading[]): void {
    const { labels = [], maxChildren = DEFAULT_MAX_CHILDREN } = options;
    const metric: PromCounter = new PromCounter({
      ...this.#config(options),
      collect: () => {
        metric.reset();
        for (const reading of read().slice(0, maxChildren)) metric.inc(Object.fromEntries(labels.map((label, index) => [label, reading.labels[index]])), reading.value);
      },
    });
  }

  /** Of counts or sizes. For durations use `duration`. */
  histogram(options: HistogramOptions): Family<HistogramChild> {
    const metric = new PromHistogram({ ...this.#config(options), buckets: [...options.buckets] });
    return new LabelFamily(options, { make: (labels) => metric.labels(labels), remove: (labels) => metric.remove(labels) });
  }

  /** Of durations: the name should end in `_seconds`, the bounds are seconds, values come in milliseconds. */
  duration(options: HistogramOptions): Family<DurationChild> {
    const metric = new PromHistogram({ ...this.#config(options), buckets: [...options.buckets] });
    return new LabelFamily(options, {
      make: (labels) => {
        const child = metric.labels(labels);
        return { recordMs: (durationMs: number) => child.observe(durationMs / 1000) };
      },
      remove: (labels) => metric.remove(labels),
    });
  }

  /** The text exposition format. */
  async render(): Promise<string> {
    return this.#registry.metrics();
  }

  #config(options: MetricOptions) {
    if (this.#registry.getSingleMetric(options.name) !== undefined) throw new InvariantError(`metric ${options.name} is registered twice`);
    return { name: options.name, help: options.help, labelNames: [...(options.labels ?? [])], registers: [this.#registry] };
  }
}

interface ChildSource<Child> {
  make(labels: Record<string, string>): Child;
  remove(labels: Record<string, string>): void;
}

class LabelFamily<Child> implements Family<Child> {
  readonly #children = new Map<string, Child>();
  readonly #labels: readonly string[];
  readonly #maxChildren: number;
  readonly #source: ChildSource<Child>;

  constructor(options: MetricOptions, source: ChildSource<Child>) {
    this.#labels = options.labels ?? [];
    this.#maxChildren = options.maxChildren ?? DEFAULT_MAX_CHILDREN;
    this.#source = source;
    // Scraped as 0 before anything happened, as a metric without labels should be.
    if (this.#labels.length === 0) this.with();
  }

  with(...labelValues: readonly string[]): Child {
    const key = labelValues.length === 1 ? labelValues[0] : labelValues.join("\u0000");
    const known = this.#children.get(key);
    if (known !== undefined) return known;
    if (labelValues.length !== this.#labels.length) {
      throw new InvariantError(`${labelValues.length} label values given, the labels are ${this.#labels.join(", ")}`);
    }
    if (this.#labels.length > 0 && this.#children.size >= this.#maxChildren && labelValues[0] !== OVERFLOW) {
      return this.with(...labelValues.map(() => OVERFLOW));
    }
    const child = this.#source.make(this.#record(labelValues));
    this.#children.set(key, child);
    return child;
  }

  forget(...labelValues: readonly string[]): void {
    if (this.#children.delete(labelValues.join("\u0000"))) this.#source.remove(this.#record(labelValues));
  }

  #record(values: readonly string[]): Record<string, string> {
    return Object.fromEntries(this.#labels.map((label, index) => [label, values[index]]));
  }
}
