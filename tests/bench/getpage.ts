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
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { freePort } from "../../src/platform/free-port.ts";
import { bytes, u32, u64, u8 } from "../conformance/bytes.ts";
import { RawLibpq } from "../conformance/raw-libpq.ts";
import { cpuTimeMs } from "./support/cpu.ts";
import { cleanups, Client, http, median, PAGE, PAGE_ANSWER_BYTES, pagestreamClient, startCeiling, startPageserver, TENANT } from "./support/page-client.ts";

const TIMELINE = "aa".repeat(16);
const LATEST = 0xffff_ffff_ffff_ffffn;
/** Catalogs whose file number is their oid in a fresh cluster: pg_type, pg_attribute, pg_proc, pg_depend, … */
const RELATIONS = [1247, 1249, 1255, 1259, 2602, 2608, 2609, 2617, 2618, 2836, 2838, 2840, 3456];
const REDIS_ANSWER_BYTES = "$8192\r\n".length + PAGE + 2;
const REDIS = Bun.which("redis-server");

const { values: args } = parseArgs({ options: { rounds: { type: "string", default: "3" }, seconds: { type: "string", default: "2" }, executable: { type: "string" } } });
const root = mkdtempSync(join(tmpdir(), "strata-bench-getpage-"));
cleanups.push(() => rmSync(root, { recursive: true, force: true }));

interface Contestant {
  readonly name: string;
  /** Of the server. */
  readonly pid: number;
  readonly socket: Client;
  readonly requests: readonly Uint8Array[];
  readonly answerBytes: number;
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
      const { rate, answered, timesUs } = await contestant.socket.run(contestant, { depth, seconds: Number(args.seconds) });
      runs[index].push({ rate, cpuUs: ((cpuTimeMs([contestant.pid]) - before) * 1000) / answered, p50Us: timesUs[timesUs.length >> 1] ?? 0 });
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
  const ports = await startPageserver({ root, executable: args.executable });
  const requests = await preparePages(ports);
  const contestants: Contestant[] = [{ name: "strata", pid: ports.pid, socket: await pagestreamClient(ports.pgPort, TIMELINE), requests, answerBytes: PAGE_ANSWER_BYTES }];
  const ceiling = await startCeiling(requests[0].length);
  contestants.push({ name: "ceiling", pid: ceiling.pid, socket: ceiling.client, requests, answerBytes: PAGE_ANSWER_BYTES });
  const redis = await startRedis(requests.length);
  if (redis === null) console.log("SKIPPED: redis-server is not installed, nothing to compare with");
  else contestants.push(redis);
  console.log(`${requests.length} pages in image layers, one connection, ${args.seconds} s a run, load average ${loadavg().map((load) => load.toFixed(1)).join(" ")}`);
  for (const contestant of contestants) await contestant.socket.run(contestant, { depth: 32, seconds: Number(args.seconds) });
  const [deepOurs, deepCeiling, deepTheirs] = await measure(contestants, 32);
  const [ours, bare, theirs] = await measure(contestants, 1);
  const ratio = (a: number, b: number | undefined): string => (b === undefined ? "no Redis" : `${(a / b).toFixed(2)}× Redis`);
  console.log(`processor time a request: ${deepOurs.cpuUs.toFixed(1)} µs at depth 32 (${ratio(deepOurs.cpuUs, deepTheirs?.cpuUs)}), ${ours.cpuUs.toFixed(1)} µs at depth 1 (${ratio(ours.cpuUs, theirs?.cpuUs)}); load average ${loadavg().map((load) => load.toFixed(1)).join(" ")}`);
  console.log(`what bounds it: the event loop and the kernel alone take ${deepCeiling.cpuUs.toFixed(1)} µs of it at depth 32 (${ratio(deepCeiling.rate, deepTheirs?.rate)} is the most there is), ${bare.cpuUs.toFixed(1)} µs at depth 1 (p50 ${bare.p50Us.toFixed(0)} µs, ${ratio(bare.p50Us, theirs?.p50Us)})`);
  console.log(`getpage: ${deepOurs.rate.toFixed(0)}/s at depth 32 (${ratio(deepOurs.rate, deepTheirs?.rate)}), p50 ${ours.p50Us.toFixed(0)} µs at depth 1 (${ratio(ours.p50Us, theirs?.p50Us)})`);
}

try {
  await main();
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
process.exit(0);
