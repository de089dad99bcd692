/**
 * A metric of the library's registry whose samples are read from plain numbers (metric-values.ts) when it is scraped. The library's own
 * children build a hash of their labels at every increment, which is dear on hot paths; its registry, checks and text format are used.
 */
import { Gauge, type MetricType as LibraryType } from "prom-client";
import type { Histogram } from "./metric-values.ts";

export type MetricType = "counter" | "gauge" | "histogram";
export type Labels = Record<string, string>;

export interface Sample {
  readonly labels: Labels;
  /** Labels that several samples have, beside their own. */
  readonly sharedLabels?: Labels;
  /** If it is not the metric's. */
  readonly metricName?: string;
  readonly value: number;
}

export interface ScrapedMetricOptions {
  readonly name: string;
  readonly help: string;
  readonly type: MetricType;
  readonly read: () => Sample[];
}

/** Of any type: of the library's classes, a gauge's is the one that asks for no more than `get` when it is printed. */
export class ScrapedMetric extends Gauge {
  readonly #options: ScrapedMetricOptions;

  constructor(options: ScrapedMetricOptions) {
    super({ name: options.name, help: options.help, registers: [] });
    this.#options = options;
  }

  override async get() {
    const { type, read } = this.#options;
    // The library declares its types as numbers, and has them as names.
    return { ...(await super.get()), type: type as unknown as LibraryType, values: read() };
  }
}

export function histogramSamples(name: string, labels: Labels, { bounds, counts, sum }: Histogram): Sample[] {
  const samples: Sample[] = [];
  let total = 0;
  for (let i = 0; i < counts.length; i++) {
    total += counts[i];
    samples.push({ metricName: `${name}_bucket`, labels: { le: i < bounds.length ? String(bounds[i]) : "+Inf" }, sharedLabels: labels, value: total });
  }
  samples.push({ metricName: `${name}_sum`, labels, value: sum }, { metricName: `${name}_count`, labels, value: total });
  return samples;
}
