/** What the page benchmarks share: a pageserver as a process of its own, and a client that does nothing with an answer but count bytes. */
import { mkdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Socket } from "bun";
import { freePort } from "../../../src/platform/free-port.ts";
import { bytes, u32 } from "../../conformance/bytes.ts";
import { onInterrupt } from "./interrupt.ts";

const MAIN = join(import.meta.dir, "../../../src/main.ts");
const CEILING = join(import.meta.dir, "echo-server.ts");
export const TENANT = "0123456789abcdef0123456789abcdef";
export const PAGE = 8192;
/** d, length, 102, echo of 41 bytes, page. */
export const PAGE_ANSWER_BYTES = 1 + 4 + 1 + 41 + PAGE;

/** Undone in reverse at the end. */
export const cleanups: (() => Promise<unknown> | void)[] = [];
onInterrupt(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await Promise.resolve(cleanup()).catch((error: unknown) => console.error(error));
});

export interface Run {
  readonly rate: number;
  readonly answered: number;
  readonly timesUs: Float64Array;
}

/** A connection on which only bytes are counted. */
export class Client {
  #socket: Socket | null = null;
  #onBytes: (count: number) => void = () => undefined;
  #unsent: Uint8Array = new Uint8Array(0);

  static async connect(port: number): Promise<Client> {
    const client = new Client();
    client.#socket = await Bun.connect({
      hostname: "127.0.0.1", port,
      socket: { data: (_socket, chunk) => client.#onBytes(chunk.length), drain: () => client.write(new Uint8Array(0)) },
    });
    cleanups.push(() => void client.#socket?.end());
    return client;
  }

  write(data: Uint8Array): void {
    const all = this.#unsent.length === 0 ? data : Buffer.concat([this.#unsent, data]);
    const sent = this.#socket?.write(all) ?? 0;
    this.#unsent = sent < all.length ? all.slice(sent) : new Uint8Array(0);
  }

  /** Keeps `depth` requests in flight for a while: random ones, or each once in their order. @returns answers a second, and at depth 1 the time of each, sorted */
  async run(contestant: { readonly requests: readonly Uint8Array[]; readonly answerBytes: number }, load: { readonly depth: number; readonly seconds: number; readonly once?: boolean }): Promise<Run> {
    const { requests, answerBytes } = contestant;
    const { depth, seconds } = load;
    let next = 0;
    const pick = (): Uint8Array => requests[load.once === true ? next++ : Math.floor(Math.random() * requests.length)];
    const more = (wanted: number): boolean => load.once !== true || next + wanted <= requests.length;
    const done = Promise.withResolvers<void>();
    const times: number[] = [];
    const startMs = performance.now();
    const endMs = startMs + seconds * 1000;
    let received = 0;
    let answered = 0;
    let inFlight = depth;
    let sentMs = startMs;
    this.#onBytes = (count) => {
      received += count;
      const complete = Math.floor(received / answerBytes) - answered;
      if (complete === 0) return;
      answered += complete;
      inFlight -= complete;
      const nowMs = performance.now();
      if (depth === 1) times.push(nowMs - sentMs);
      sentMs = nowMs;
      if (nowMs < endMs && more(complete)) {
        inFlight += complete;
        this.write(complete === 1 ? pick() : Buffer.concat(Array.from({ length: complete }, pick)));
      } else if (inFlight === 0) done.resolve();
    };
    sentMs = performance.now();
    this.write(Buffer.concat(Array.from({ length: depth }, pick)));
    await done.promise;
    return { rate: (answered / (performance.now() - startMs)) * 1000, answered, timesUs: Float64Array.from(times, (ms) => ms * 1000).sort() };
  }

  /** Sends once, and waits for this many bytes. */
  async exchange(data: Uint8Array, answerBytes: number): Promise<void> {
    const done = Promise.withResolvers<void>();
    let received = 0;
    this.#onBytes = (count) => {
      received += count;
      if (received >= answerBytes) done.resolve();
    };
    this.write(data);
    await done.promise;
  }
}

export async function http(port: number, what: `${string} ${string}`, body?: unknown): Promise<void> {
  const [method, path] = what.split(" ");
  const reply = await fetch(`http://127.0.0.1:${port}${path}`, { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  if (!reply.ok) throw new Error(`${method} ${path}: ${reply.status} ${await reply.text()}`);
}

export async function startPageserver(options: { readonly root: string; readonly executable: string | undefined; readonly settings?: string }): Promise<{ pid: number; pgPort: number; httpPort: number }> {
  const [pgPort, httpPort] = [freePort(), freePort()];
  const { root, executable, settings = "" } = options;
  const directory = join(root, "pageserver");
  mkdirSync(directory);
  writeFileSync(join(directory, "identity.toml"), "id = 1\n");
  writeFileSync(join(directory, "pageserver.toml"), `listen_pg_addr = "127.0.0.1:${pgPort}"\nlisten_http_addr = "127.0.0.1:${httpPort}"\ninitdb_directory = "${tmpdir()}"\n${settings}[tenant_config]\ncompaction_period = "0s"\ngc_period = "0s"\n`);
  const program = executable === undefined ? [process.execPath, MAIN] : [executable];
  const child = Bun.spawn([...program, "--role", "pageserver", "-D", directory], { stdout: "ignore", stderr: Bun.file(join(root, "pageserver.log")) });
  cleanups.push(async () => {
    child.kill("SIGKILL");
    await child.exited;
  });
  for (let tries = 0; tries < 200; tries++) {
    if (await fetch(`http://127.0.0.1:${httpPort}/v1/status`).then((reply) => reply.ok, () => false)) return { pid: child.pid, pgPort, httpPort };
    await Bun.sleep(50);
  }
  throw new Error(`the pageserver does not start: ${await Bun.file(join(root, "pageserver.log")).text()}`);
}

export async function pagestreamClient(pgPort: number, timelineId: string): Promise<Client> {
  const client = await Client.connect(pgPort);
  const startup = bytes(u32(196_608), Buffer.from("user\0bench\0\0"));
  const query = Buffer.from(`pagestream_v3 ${TENANT} ${timelineId}\0`);
  client.write(bytes(u32(startup.length + 4), startup));
  await Bun.sleep(200);
  // CopyBothResponse: 8 bytes.
  await client.exchange(bytes(Buffer.from("Q"), u32(query.length + 4), query), 8);
  return client;
}

/** What an event loop can do at all: a server that answers every request of a size with as many bytes as a page's answer has, from memory. */
export async function startCeiling(requestBytes: number): Promise<{ readonly pid: number; readonly client: Client }> {
  const child = Bun.spawn([process.execPath, CEILING, String(requestBytes), String(PAGE_ANSWER_BYTES)], { stdout: "pipe", stderr: "inherit" });
  cleanups.push(async () => {
    child.kill("SIGKILL");
    await child.exited;
  });
  const { value } = await child.stdout.getReader().read();
  return { pid: child.pid, client: await Client.connect(Number(new TextDecoder().decode(value))) };
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

