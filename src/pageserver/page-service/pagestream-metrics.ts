/** Told what a pagestream does, for metrics; all calls are cheap. */
import type { PagestreamRequest } from "../api/pagestream.ts";

export interface PagestreamMetrics {
  batch(requests: number): void;
  answered(kind: PagestreamRequest["kind"], failed: boolean): void;
  /** A batch of page requests answered without waiting. */
  answeredQuickly(requests: number): void;
}
