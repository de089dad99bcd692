/**
 * What metrics are made of: plain numbers in objects of one shape, so that counting costs an addition and observing a search of a few
 * steps. They may live in a registry's family, or with what they count (a timeline) and be read when they are scraped.
 */

/** A counter or a gauge: the registry knows which. */
export class MetricValue {
  value = 0;

  inc(by = 1): void {
    this.value += by;
  }
  dec(by = 1): void {
    this.value -= by;
  }
  set(value: number): void {
    this.value = value;
  }
}

/** Observations by upper bound. The fields are plain data, which may come from another thread. */
export interface HistogramData {
  /** Of each bound those at or below it and above the one before; the last: above all bounds. */
  readonly counts: Float64Array;
  readonly sum: number;
}

export class Histogram implements HistogramData {
  /** Rising upper bounds, shared by all of a kind. */
  readonly bounds: readonly number[];
  readonly counts: Float64Array;
  sum = 0;

  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = new Float64Array(bounds.length + 1);
  }

  /** @param times that many observations of the same value */
  observe(value: number, times = 1): void {
    const { bounds } = this;
    let low = 0;
    let high = bounds.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (value <= bounds[middle]) high = middle;
      else low = middle + 1;
    }
    this.counts[low] += times;
    this.sum += value * times;
  }

  /** @param durationMs milliseconds; kept as seconds, as Prometheus wants it */
  recordMs(durationMs: number, times = 1): void {
    this.observe(durationMs / 1000, times);
  }

  get count(): number {
    let count = 0;
    for (const some of this.counts) count += some;
    return count;
  }

  /** Adds what another one with the same bounds observed. */
  add({ counts, sum }: HistogramData): void {
    for (let i = 0; i < this.counts.length; i++) this.counts[i] += counts[i];
    this.sum += sum;
  }
}
