/**
 * GetPage of pages that lie in image layers on the local disk, over libpq pagestream_v3, beside GET of 8 KiB values from
 * a Redis on the same machine: one connection, one client program for both, depth 32 and depth 1, interleaved rounds.
 *
 *   bun run bench getpage [--rounds 3] [--seconds 2] [--executable dist/strata]
 *
 * The pageserver is a process of its own. The client does nothing with an answer but count its bytes. "ceiling" is a bare server
 * on the same runtime that answers with as many bytes and does nothing else: what one event loop can do. Processor time is the
 * server's, and means something on a busy machine too.
 * Last line: `getpage: N/s at depth 32 (R× Redis), p50 M µs at depth 1 (S× Redis)`.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Socket } from "bun";
import { freePort } from "../../src/platform/free-port.ts";
import { bytes, u32, u64, u8 } from "../conformance/bytes.ts";
import { RawLibpq } from "../conformance/raw-libpq.ts";
import { cpuTimeMs } from "./support/cpu.ts";

const MAIN = join(import.meta.dir, "../../src/main.ts");
const CEILING = join(import.meta.dir, "support/echo-server.ts");
const TENANT = "0123456789abcdef0123456789abcdef";
const TIMELINE = "aa".repeat(16);
const PAGE = 8192;
const LATEST = 0xffff_ffff_ffff_ffffn;
/** Catalogs whose file number is their oid in a fresh cluster: pg_type, pg_attribute, pg_proc, pg_depend, … */
const RELATIONS = [1247, 1249, 1255, 1259, 2602, 2608, 2609, 2617, 2618, 2836, 2838, 2840, 3456];
/** d, length, 102, echo of 41 bytes, page. */
const PAGE_ANSWER_BYTES = 1 + 4 + 1 + 41 + PAGE;
const REDIS_ANSWER_BYTES = "$8192\r\n".length + PAGE + 2;
const REDIS = Bun.which("redis-server");

const { values: args } = parseArgs({ options: { rounds: { type: "string", default: "3" }, seconds: { type: "string", default: "2" }, executable: { type: "string" } } });
const root = mkdtempSync(join(tmpdir(), "strata-bench-getpage-"));
const cleanups: (() => Promise<unknown> | void)[] = [() => rmSync(root, { recursive: true, force: true })];

interface Contestant {
  readonly name: string;
  /** Of the server. */
  readonly pid: number;
  readonly socket: Client;
  readonly requests: readonly Uint8Array[];
  readonly answerBytes: number;
}

/** A connection on which only bytes are counted. */
class Client {
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

  /** Keeps `depth` requests in flight for a while. @returns answers a second, and at depth 1 the median time of one */
  async run(contestant: Pick<Contestant, "requests" | "answerBytes">, depth: number): Promise<{ rate: number; answered: number; p50Us: number }> {
    const { requests, answerBytes } = contestant;
    const pick = (): Uint8Array => requests[Math.floor(Math.random() * requests.length)];
    const done = Promise.withResolvers<void>();
    const times: number[] = [];
    const startMs = performance.now();
    const endMs = startMs + Number(args.seconds) * 1000;
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
      if (nowMs < endMs) {
        inFlight += complete;
        this.write(complete === 1 ? pick() : Buffer.concat(Array.from({ length: complete }, pick)));
      } else if (inFlight === 0) done.resolve();
    };
    sentMs = performance.now();
    this.write(Buffer.concat(Array.from({ length: depth }, pick)));
    await done.promise;
    return { rate: (answered / (performance.now() - startMs)) * 1000, answered, p50Us: depth === 1 ? median(times) * 1000 : 0 };
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

async function http(port: number, what: `${string} ${string}`, body?: unknown): Promise<void> {
  const [method, path] = what.split(" ");
  const reply = await fetch(`http://127.0.0.1:${port}${path}`, { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  if (!reply.ok) throw new Error(`${method} ${path}: ${reply.status} ${await reply.text()}`);
}

async function startPageserver(): Promise<{ pid: number; pgPort: number; httpPort: number }> {
  const [pgPort, httpPort] = [freePort(), freePort()];
  const directory = join(root, "pageserver");
  mkdirSync(directory);
  writeFileSync(join(directory, "identity.toml"), "id = 1\n");
  writeFileSync(join(directory, "pageserver.toml"), `listen_pg_addr = "127.0.0.1:${pgPort}"\nlisten_http_addr = "127.0.0.1:${httpPort}"\ninitdb_directory = "${tmpdir()}"\n[tenant_config]\ncompaction_period = "0s"\ngc_period = "0s"\n`);
  const program = args.executable === undefined ? [process.execPath, MAIN] : [args.executable];
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

/** A cluster in image layers; requests for every page of its larger catalogs. */
async function preparePages({ pgPort, httpPort }: { pgPort: number; httpPort: number }): Promise<Uint8Array[]> {
  await http(httpPort, `PUT /v1/tenant/${TENANT}/location_config`, { mode: "AttachedSingle", generation: 1, tenant_conf: {} });
  await http(httpPort, `POST /v1/tenant/${TENANT}/timeline`, { new_timeline_id: TIMELINE, pg_version: 17 });
  await http(httpPort, `PUT /v1/tenant/${TENANT}/timeline/${TIMELINE}/checkpoint?force_image_layer_creation=true&wait_until_uploaded=true`);
  const { raw } = await RawLibpq.session(pgPort, { user: "bench", database: "bench" });
  raw.query(`pagestream_v3 ${TENANT} ${TIMELINE}`);
  await raw.expect("W");
  const requests: Uint8Array[] = [];
  const header = bytes(u64(1), u64(LATEST), u64(8));
  for (const relation of RELATIONS) {
    const rel = bytes(u32(1663), u32(5), u32(relation), u8(0));
    raw.copyData(u8(1), header, rel);
    const answer = await raw.expect("d");
    if (answer[0] !== 101) continue;
    for (let block = 0; block < answer.readUInt32BE(answer.length - 4); block++) {
      const request = bytes(u8(2), header, rel, u32(block));
      requests.push(bytes(Buffer.from("d"), u32(request.length + 4), request));
    }
  }
  // Every page once, so that the runs read what is resident; an error would not have this length.
  for (const request of requests) {
    raw.write(request);
    const answer = await raw.expect("d");
    if (answer.length !== PAGE_ANSWER_BYTES - 5 || answer[0] !== 102) throw new Error("a page could not be read");
  }
  raw.close();
  return requests;
}

async function pagestreamClient(pgPort: number): Promise<Client> {
  const client = await Client.connect(pgPort);
  const startup = bytes(u32(196_608), Buffer.from("user\0bench\0\0"));
  const query = Buffer.from(`pagestream_v3 ${TENANT} ${TIMELINE}\0`);
  client.write(bytes(u32(startup.length + 4), startup));
  await Bun.sleep(200);
  // CopyBothResponse: 8 bytes.
  await client.exchange(bytes(Buffer.from("Q"), u32(query.length + 4), query), 8);
  return client;
}

async function startRedis(pages: number): Promise<Contestant | null> {
  if (REDIS === null) return null;
  const port = freePort();
  const child = Bun.spawn([REDIS, "--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", root], { stdout: "ignore", stderr: "ignore" });
  cleanups.push(async () => {
    child.kill("SIGKILL");
    await child.exited;
  });
  let socket: Client | null = null;
  for (let tries = 0; socket === null && tries < 100; tries++) {
    await Bun.sleep(30);
    socket = await Client.connect(port).catch(() => null);
  }
  if (socket === null) throw new Error("Redis does not start");
  const command = (...words: Uint8Array[]): Uint8Array => Buffer.concat([Buffer.from(`*${words.length}\r\n`), ...words.flatMap((word) => [Buffer.from(`$${word.length}\r\n`), word, Buffer.from("\r\n")])]);
  const keys = Array.from({ length: pages }, (_, index) => Buffer.from(`page:${index}`));
  for (const key of keys) await socket.exchange(command(Buffer.from("SET"), key, crypto.getRandomValues(new Uint8Array(PAGE))), "+OK\r\n".length);
  return { name: "Redis GET", pid: child.pid, socket, requests: keys.map((key) => command(Buffer.from("GET"), key)), answerBytes: REDIS_ANSWER_BYTES };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

/** What an event loop can do at all: a server that answers every request of a page's size with as many bytes from memory. */
async function startCeiling(requests: readonly Uint8Array[]): Promise<Contestant> {
  const child = Bun.spawn([process.execPath, CEILING, String(requests[0].length), String(PAGE_ANSWER_BYTES)], { stdout: "pipe", stderr: "inherit" });
  cleanups.push(async () => {
    child.kill("SIGKILL");
    await child.exited;
  });
  const { value } = await child.stdout.getReader().read();
  const port = Number(new TextDecoder().decode(value));
  return { name: "ceiling", pid: child.pid, socket: await Client.connect(port), requests, answerBytes: PAGE_ANSWER_BYTES };
}

interface Measured {
  readonly rate: number;
  /** Of the server's processor time, user and system, for each answer. */
  readonly cpuUs: number;
  readonly p50Us: number;
}

/** Medians of each contestant at a depth, in rounds one after the other. */
async function measure(contestants: readonly Contestant[], depth: number): Promise<Measured[]> {
  const runs = contestants.map((): Measured[] => []);
  for (let round = 0; round < Number(args.rounds); round++) {
    for (const [index, contestant] of contestants.entries()) {
      const before = cpuTimeMs([contestant.pid]);
      const { rate, answered, p50Us } = await contestant.socket.run(contestant, depth);
      runs[index].push({ rate, cpuUs: ((cpuTimeMs([contestant.pid]) - before) * 1000) / answered, p50Us });
    }
  }
  return contestants.map(({ name }, index) => {
    const own = runs[index];
    const rate = median(own.map((run) => run.rate));
    const cpuUs = median(own.map((run) => run.cpuUs));
    const p50Us = median(own.map((run) => run.p50Us));
    const each = depth === 1 ? `, p50 ${p50Us.toFixed(0)} µs` : "";
    console.log(`depth ${String(depth).padEnd(3)} ${name.padEnd(10)} ${rate.toFixed(0).padStart(7)}/s, ${((rate * PAGE) / 1e6).toFixed(0).padStart(5)} MB/s, ${cpuUs.toFixed(1).padStart(5)} µs of processor each${each}   (runs: ${own.map((run) => run.rate.toFixed(0)).join(" ")})`);
    return { rate, cpuUs, p50Us };
  });
}

async function main(): Promise<void> {
  if (args.executable !== undefined && !existsSync(args.executable)) throw new Error(`${args.executable} is not there`);
  const ports = await startPageserver();
  const requests = await preparePages(ports);
  const contestants: Contestant[] = [{ name: "strata", pid: ports.pid, socket: await pagestreamClient(ports.pgPort), requests, answerBytes: PAGE_ANSWER_BYTES }];
  contestants.push(await startCeiling(requests));
  const redis = await startRedis(requests.length);
  if (redis === null) console.log("SKIPPED: redis-server is not installed, nothing to compare with");
  else contestants.push(redis);
  console.log(`${requests.length} pages in image layers, one connection, ${args.seconds} s a run, load average ${loadavg().map((load) => load.toFixed(1)).join(" ")}`);
  for (const contestant of contestants) await contestant.socket.run(contestant, 32);
  const [deepOurs, , deepTheirs] = await measure(contestants, 32);
  const [ours, , theirs] = await measure(contestants, 1);
  const ratio = (a: number, b: number | undefined): string => (b === undefined ? "no Redis" : `${(a / b).toFixed(2)}× Redis`);
  console.log(`processor time a request: ${deepOurs.cpuUs.toFixed(1)} µs at depth 32 (${ratio(deepOurs.cpuUs, deepTheirs?.cpuUs)}), ${ours.cpuUs.toFixed(1)} µs at depth 1 (${ratio(ours.cpuUs, theirs?.cpuUs)}); load average ${loadavg().map((load) => load.toFixed(1)).join(" ")}`);
  console.log(`getpage: ${deepOurs.rate.toFixed(0)}/s at depth 32 (${ratio(deepOurs.rate, deepTheirs?.rate)}), p50 ${ours.p50Us.toFixed(0)} µs at depth 1 (${ratio(ours.p50Us, theirs?.p50Us)})`);
}

try {
  await main();
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
process.exit(0);
