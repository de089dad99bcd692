/** Bytes over libpq connections, by who they were with and whether they left the availability zone. */
import type { GaugeReading, Metrics } from "../observability/metrics.ts";
import type { PgSession } from "../wire/pg-session.ts";

export interface ConnectionLabels {
  readonly clientZone: string | null;
  readonly ownZone: string | null;
  readonly applicationName: string | null;
}

type Measured = Pick<PgSession, "traffic">;

interface Total {
  read: number;
  written: number;
  readonly labels: readonly [clientZone: string, ownZone: string, applicationName: string];
}

const UNKNOWN = "unknown";
/** Names come from outside: what is beyond is counted together. */
const MAX_TOTALS = 1000;

export class PgTraffic {
  readonly #totals = new Map<string, Total>();
  readonly #open = new Map<Measured, Total>();

  constructor(metrics: Metrics) {
    const labels = ["client_az", "sk_az", "app_name", "dir", "same_az"];
    metrics.countersFrom({ name: "safekeeper_pg_io_bytes_total", help: "Bytes read from or written to any PostgreSQL connection", labels, maxChildren: 2 * MAX_TOTALS + 2 }, () => this.#readings());
  }

  opened(session: Measured, { clientZone, ownZone, applicationName }: ConnectionLabels): void {
    this.#open.set(session, this.#totalOf([clientZone ?? UNKNOWN, ownZone ?? UNKNOWN, applicationName ?? UNKNOWN]));
  }

  closed(session: Measured): void {
    const total = this.#open.get(session);
    if (total === undefined) return;
    this.#open.delete(session);
    add(total, session);
  }

  #totalOf(labels: Total["labels"]): Total {
    const key = JSON.stringify(labels);
    const known = this.#totals.get(key);
    if (known !== undefined) return known;
    if (this.#totals.size >= MAX_TOTALS && !labels.includes("overflow")) return this.#totalOf(["overflow", "overflow", "overflow"]);
    const total: Total = { read: 0, written: 0, labels };
    this.#totals.set(key, total);
    return total;
  }

  #readings(): GaugeReading[] {
    const now = new Map([...this.#totals.values()].map((total) => [total, { ...total }]));
    for (const [session, total] of this.#open) add(now.get(total) ?? { ...total }, session);
    return [...now.values()].flatMap(({ read, written, labels }) => {
      const [clientZone, ownZone] = labels;
      const same = clientZone === UNKNOWN || ownZone === UNKNOWN ? UNKNOWN : String(clientZone === ownZone);
      return [{ labels: [...labels, "read", same], value: read }, { labels: [...labels, "write", same], value: written }];
    });
  }
}

function add(total: Pick<Total, "read" | "written">, { traffic }: Measured): void {
  total.read += traffic.receivedBytes;
  total.written += traffic.sentBytes;
}
