/** Told what a pagestream does, for metrics; all calls are cheap. */
import type { PagestreamRequest } from "../api/pagestream.ts";

export interface PagestreamMetrics {
  batch(requests: number): void;
  answered(kind: PagestreamRequest["kind"], failed: boolean): void;
  /** A batch of page requests answered without waiting. */
  answeredQuickly(requests: number): void;
}

/** The same of the whole page service. */
export interface PageServiceMetrics extends PagestreamMetrics {
  connected(): void;
  disconnected(): void;
  command(name: "PageStreamV2" | "PageStreamV3" | "Basebackup" | "Fullbackup" | "LeaseLsn"): void;
  /** "client_error": the client went away. */
  backedUp(result: "ok" | "error" | "client_error", durationMs: number): void;
}
