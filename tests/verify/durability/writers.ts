/** Clients that commit numbered rows and remember which were acknowledged. */
import { PgClient } from "../../../src/wire/client.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";

const platform = realPlatform();
const RECONNECT_MS = 50;
const CONNECT_TIMEOUT_MS = 5_000;
/** Wide enough that WAL grows by some segments over a run. */
const ROW_BYTES_MAX = 2_000;

export async function connect(port: number): Promise<PgClient> {
  return PgClient.connect(platform.network, {
    address: { host: "127.0.0.1", port },
    parameters: { user: "postgres", database: "postgres", application_name: "durability" },
    timeoutMs: CONNECT_TIMEOUT_MS,
    clock: platform.clock,
    random: platform.random,
  });
}

export class Writers {
  readonly #port: number;
  /** Numbers whose commit was answered. */
  readonly acknowledged = new Set<number>();
  readonly #clients = new Set<PgClient>();
  #running: Promise<void>[] = [];
  #stopped = false;
  #next = 1;

  /** @param port of the compute */
  constructor(port: number) {
    this.#port = port;
  }

  createTable(): Promise<void> {
    return this.query("create table ledger (id int primary key, filler text)");
  }

  async query(sql: string): Promise<void> {
    const client = await connect(this.#port);
    try {
      await client.query(sql);
    } finally {
      client.destroy();
    }
  }

  start(count: number): void {
    this.#stopped = false;
    for (let at = 0; at < count; at++) this.#running.push(this.#write());
  }

  /** Ends all sessions; what was under way is not acknowledged. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const client of this.#clients) client.destroy();
    await Promise.all(this.#running.splice(0));
  }

  /** True when `count` more rows than now were acknowledged within `timeoutMs`. */
  async progress(count: number, timeoutMs: number): Promise<boolean> {
    const goal = this.acknowledged.size + count;
    const deadlineMs = performance.now() + timeoutMs;
    while (this.acknowledged.size < goal) {
      if (performance.now() > deadlineMs) return false;
      await Bun.sleep(20);
    }
    return true;
  }

  /** Acknowledged rows that are not there. */
  async missing(): Promise<number[]> {
    const expected = [...this.acknowledged];
    const client = await connect(this.#port);
    try {
      const { rows } = await client.query("select id from ledger");
      const present = new Set(rows.map(([id]) => Number(id)));
      return expected.filter((id) => !present.has(id));
    } finally {
      client.destroy();
    }
  }

  async #write(): Promise<void> {
    while (!this.#stopped) {
      let client: PgClient | null = null;
      try {
        client = await connect(this.#port);
        this.#clients.add(client);
        await this.#insert(client);
      } catch {
        // Killed under us, or not up yet: the outcome of the last row is unknown, and it is not counted.
        await Bun.sleep(RECONNECT_MS);
      } finally {
        if (client !== null) this.#clients.delete(client);
        client?.destroy();
      }
    }
  }

  async #insert(client: PgClient): Promise<void> {
    while (!this.#stopped) {
      const id = this.#next++;
      await client.query(`insert into ledger values (${id}, repeat('x', ${(id * 7919) % ROW_BYTES_MAX}))`);
      this.acknowledged.add(id);
    }
  }
}
