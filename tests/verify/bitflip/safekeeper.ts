/**
 * A safekeeper's files at rest, damaged bit by bit: control file and WAL. Afterwards the timeline is refused at the start, or its log
 * is read, and every record in it either is what was written or fails its checksum; or the log is found to end before the damage, like
 * one that was torn, and the rest comes again from the other safekeepers. The control file's own fields are right, or it is refused.
 */
import { isStrataError } from "../../../src/kit/errors.ts";
import { VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import type { VirtualMachine } from "../../../src/platform/virtual/virtual-world.ts";
import { copyRecord, WalRecord } from "../../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import type { Timeline } from "../../../src/safekeeper/timeline/timeline.ts";
import { ID, openTimelines, Proposer, START } from "../../safekeeper/support/crash-model.ts";
import { MIB } from "../../safekeeper/support/sample-wal.ts";
import { NEW_TIMELINE } from "../crash/safekeeper.ts";

const VERSION = 17;
const APPENDS = 3;
const CONTROL_FILE_SHARE = 64;

export interface SafekeeperFlips {
  flips: number;
  /** What came of them, with how often. */
  readonly outcomes: Map<string, number>;
}

/** @throws Error naming file, byte and bit when a record is other than written, or an error is not typed */
export function runSafekeeperBitflip(options: { readonly stride: number; readonly seed: number }): SafekeeperFlips {
  const world = new VirtualWorld({ seed: options.seed });
  return world.clock.run(() => flipAll(world, options), { maxMs: 1e12, maxSteps: 1e12 });
}

async function flipAll(world: VirtualWorld, options: { readonly stride: number; readonly seed: number }): Promise<SafekeeperFlips> {
  const machine = world.machine("sk");
  const random = world.random.fork("test");
  const proposer = new Proposer();
  await machine.platform.files.makeDirectory("/data");
  const timelines = openTimelines(machine);
  await timelines.load();
  const timeline = await timelines.create(NEW_TIMELINE, { revive: true });
  await proposer.elect(timeline);
  for (let i = 0; i < APPENDS; i++) await proposer.append(timeline, random);
  await timeline.save();
  const written = { bytes: proposer.log.bytes, records: await recordsOf(proposer.log.bytes), state: stateOf(timeline) };
  await timelines.close();
  const result: SafekeeperFlips = { flips: 0, outcomes: new Map() };
  for (const { path, from, to } of await placesToDamage(machine, written.bytes.length)) {
    const good = await machine.platform.files.readFile(path);
    // Control files are small, and each byte of theirs decides something.
    const stride = to === Number.POSITIVE_INFINITY ? Math.max(1, Math.floor(options.stride / CONTROL_FILE_SHARE)) : options.stride;
    for (let at = from + (options.seed % stride); at < Math.min(to, good.length); at += stride) {
      const bit = random.below(8);
      const bad = good.slice();
      bad[at] ^= 1 << bit;
      await write(machine, path, bad);
      const outcome = await outcomeOf(machine, written, `${path} byte ${at} bit ${bit}`);
      result.outcomes.set(outcome, (result.outcomes.get(outcome) ?? 0) + 1);
      result.flips++;
    }
    await write(machine, path, good);
  }
  return result;
}

interface Written {
  readonly bytes: Uint8Array;
  readonly records: readonly Uint8Array[];
  readonly state: string;
}

/** What a control file says that decides about terms and data. */
function stateOf(timeline: Timeline): string {
  const { term, termHistory, server } = timeline.state as { term: number; termHistory: unknown; server?: unknown };
  return JSON.stringify([term, termHistory, server], (_key, value: unknown) => (typeof value === "bigint" ? String(value) : value));
}

/** Records of a log that starts at START. @throws StrataError corrupt at the first that is damaged */
async function recordsOf(bytes: Uint8Array, into: Uint8Array[] = []): Promise<Uint8Array[]> {
  const decoder = new WalStreamDecoder(START, VERSION, MIB);
  const record = new WalRecord();
  decoder.feed(bytes);
  while (decoder.next(record)) into.push(copyRecord(record));
  return into;
}

async function outcomeOf(machine: VirtualMachine, written: Written, where: string): Promise<string> {
  const timelines = openTimelines(machine);
  try {
    await timelines.load();
    const timeline = timelines.find(ID);
    if (timeline === null) return "refused at the start";
    if (stateOf(timeline) !== written.state) throw new Error(`${where}: the control file says ${stateOf(timeline)}, not ${written.state}`);
    return await readLog(timeline, written, where);
  } catch (error) {
    if (isStrataError(error)) return `refused: ${error.code}`;
    throw error;
  } finally {
    await timelines.close().catch(() => {});
  }
}

async function readLog(timeline: Timeline, written: Written, where: string): Promise<string> {
  const { flushLsn, volatile } = timeline.acceptor;
  if (flushLsn < volatile.commitLsn) throw new Error(`${where}: the log ends at ${flushLsn}, but ${volatile.commitLsn} was committed, and the timeline is open`);
  const bytes = Buffer.alloc(Math.max(0, flushLsn - START));
  const reader = timeline.reader(START);
  for (let at = 0; at < bytes.length; ) at += await reader.read(START + at, bytes.subarray(at));
  await reader.close();
  const found: Uint8Array[] = [];
  const failure = await recordsOf(bytes, found).then(() => null, (error: unknown) => error);
  if (failure !== null && !isStrataError(failure)) throw failure;
  found.forEach((record, i) => {
    if (Buffer.compare(record, written.records[i] ?? new Uint8Array(0)) !== 0) throw new Error(`${where}: record ${i} is another one`);
  });
  if (isStrataError(failure)) return `found when read: ${failure.code}`;
  if (found.length < written.records.length) return "the log ends before it";
  return bytes.equals(written.bytes) ? "no trace of it" : "between records";
}

/** Control files whole; of WAL segments what was written. */
async function placesToDamage(machine: VirtualMachine, logBytes: number): Promise<{ path: string; from: number; to: number }[]> {
  const places: { path: string; from: number; to: number }[] = [];
  const visit = async (directory: string): Promise<void> => {
    for (const name of await machine.platform.files.list(directory)) {
      const path = `${directory}/${name}`;
      if ((await machine.platform.files.stat(path)).isDirectory) await visit(path);
      else if (/^[0-9A-F]{24}(\.partial)?$/.test(name)) {
        const segmentLsn = Number.parseInt(name.slice(16, 24), 16) * MIB;
        places.push({ path, from: Math.max(0, START - segmentLsn), to: Math.max(0, START + logBytes - segmentLsn) });
      } else places.push({ path, from: 0, to: Number.POSITIVE_INFINITY });
    }
  };
  await visit("/data");
  return places;
}

async function write(machine: VirtualMachine, path: string, bytes: Uint8Array): Promise<void> {
  const file = await machine.platform.files.open(path, "create");
  await file.write(bytes, 0);
  await file.sync();
  await file.close();
}
