/**
 * What the program says and does when it is given what it cannot use, as processes: wrong options, taken ports and directories,
 * missing PostgreSQL, damaged files, foreign proposers, a full disk. Each ends in words that help, and nothing is deleted.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describeError } from "../../src/kit/errors.ts";
import { freePort } from "../../src/platform/free-port.ts";
import { ProposerDriver } from "../safekeeper/support/driver.ts";
import { MIB, SampleWal } from "../safekeeper/support/sample-wal.ts";
import { BUILT } from "../support/executable.ts";
import { RoleProcess } from "../support/role-process.ts";

const ROOT = join(import.meta.dir, "../..");
const PROGRAM = process.env.STRATA_TEST_PROGRAM !== undefined ? [process.env.STRATA_TEST_PROGRAM] : existsSync(BUILT) ? [BUILT] : [process.execPath, join(ROOT, "src/main.ts")];
const TENANT = "1".repeat(32);
const START = 5 * MIB + 3 * 8192 + 1000;
const LIMIT_MS = 30_000;
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
}, LIMIT_MS);

function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "strata-bad-input-"));
  cleanups.push(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Runs the program to its end. */
async function run(...args: string[]): Promise<{ exitCode: number; output: string }> {
  const child = Bun.spawn([...PROGRAM, ...args], { stdin: "ignore", stdout: "pipe", stderr: "pipe", timeout: LIMIT_MS / 2, killSignal: "SIGKILL" });
  const [stdout, stderr, exitCode] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  return { exitCode, output: stdout + stderr };
}

interface Ports {
  readonly pg: number;
  readonly http: number;
}

function safekeeperArgs(directory: string, ports: Ports = { pg: freePort(), http: freePort() }): string[] {
  return ["--role", "safekeeper", "--id", "1", "--datadir", directory, "--listen-pg", `127.0.0.1:${ports.pg}`, "--listen-http", `127.0.0.1:${ports.http}`, "--broker-endpoint", ""];
}

class Safekeeper {
  readonly directory: string;
  readonly ports: Ports = { pg: freePort(), http: freePort() };
  readonly process: RoleProcess;

  constructor(directory: string) {
    this.directory = directory;
    this.process = new RoleProcess({
      name: "safekeeper", command: [...PROGRAM, ...safekeeperArgs(directory, this.ports)], environment: {}, logPath: `${directory}.log`, readyUrl: `http://127.0.0.1:${this.ports.http}/v1/status`,
    });
    cleanups.push(() => this.process.killTree());
  }
  async start(): Promise<this> {
    this.process.start();
    await this.process.waitReady(LIMIT_MS);
    return this;
  }
  proposer(timelineId: string): Promise<ProposerDriver> {
    return ProposerDriver.connect({ port: this.ports.pg, tenantId: TENANT, timelineId });
  }
  async status(timelineId: string): Promise<{ code: number; body: Record<string, unknown> }> {
    const reply = await fetch(`http://127.0.0.1:${this.ports.http}/v1/tenant/${TENANT}/timeline/${timelineId}`);
    return { code: reply.status, body: (await reply.json()) as Record<string, unknown> };
  }
  timelineDirectory(timelineId: string): string {
    return join(this.directory, TENANT, timelineId);
  }
}

async function safekeeper(): Promise<Safekeeper> {
  return new Safekeeper(join(temporaryDirectory(), "data")).start();
}

const refusal = (action: Promise<unknown>): Promise<string> => action.then(() => "accepted", describeError);

describe("command line", () => {
  test("unknown roles, commands and options are usage errors", async () => {
    expect(await run("--role", "janitor")).toEqual({ exitCode: 2, output: expect.stringMatching(/unknown role "janitor"\nusage: strata --role broker\|/) });
    expect(await run("frobnicate")).toEqual({ exitCode: 2, output: expect.stringMatching(/unknown command "frobnicate"\nusage: /) });
    for (const role of ["broker", "safekeeper", "pageserver", "controller", "compute"]) {
      const { exitCode, output } = await run("--role", role, "--no-such-option");
      expect([role, exitCode, output]).toEqual([role, 2, expect.stringContaining(`unknown option '--no-such-option' (see ${role} --help)`)]);
    }
    expect(await run("--role", "compute")).toEqual({ exitCode: 2, output: expect.stringContaining("--datadir is required") });
    expect(await run("--role", "broker", "--listen-addr", "nowhere")).toEqual({ exitCode: 2, output: expect.stringContaining("host:port") });
  }, LIMIT_MS);
});

describe("what is taken", () => {
  test("a port in use is named", async () => {
    const taken = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    cleanups.push(() => taken.stop(true));
    const directory = temporaryDirectory();
    const attempts = [
      ["--role", "broker", "--listen-addr", `127.0.0.1:${taken.port}`],
      safekeeperArgs(join(directory, "a"), { pg: taken.port, http: freePort() }),
      safekeeperArgs(join(directory, "b"), { pg: freePort(), http: taken.port }),
    ];
    for (const args of attempts) expect(await run(...args)).toEqual({ exitCode: 1, output: expect.stringContaining(`cannot listen on 127.0.0.1:${taken.port}: it is in use by another process`) });
  }, LIMIT_MS);

  test("a directory has one process", async () => {
    const first = await safekeeper();
    const { exitCode, output } = await run(...safekeeperArgs(first.directory));
    expect([exitCode, output]).toEqual([1, expect.stringContaining("is locked by another process")]);
    expect((await fetch(`http://127.0.0.1:${first.ports.http}/v1/status`)).ok).toBe(true);
  }, LIMIT_MS);
});

describe("PostgreSQL's binaries", () => {
  const compute = (directory: string, ...more: string[]): string[] => [
    "--role", "compute", "--datadir", directory, "--tenant-id", TENANT, "--timeline-id", TENANT, "--safekeepers", "127.0.0.1:1", "--pageserver", "127.0.0.1:1",
    "--listen-http", `127.0.0.1:${freePort()}`, ...more,
  ];
  test("missing ones and those of another version: what to install, and nothing is begun", async () => {
    const directory = join(temporaryDirectory(), "compute");
    const wrong = join(ROOT, "node_modules/pg16/native/bin");
    expect(await run(...compute(directory, "--pg-bin-dir", "/nonexistent"))).toEqual({ exitCode: 1, output: expect.stringMatching(/no PostgreSQL 17 in \/nonexistent: install .*--pg-bin-dir/) });
    expect(await run(...compute(directory, "--pg-bin-dir", wrong))).toEqual({ exitCode: 1, output: expect.stringMatching(/has PostgreSQL 16\.\d+, 17 is needed: pass another --pg-bin-dir or --pg-version/) });
    expect(existsSync(directory)).toBe(false);
    const controller = ["--role", "controller", "--listen", `127.0.0.1:${freePort()}`, "--datadir", join(temporaryDirectory(), "controller"), "--pg-bin-dir", "/nonexistent"];
    expect(await run(...controller)).toEqual({ exitCode: 1, output: expect.stringContaining("no PostgreSQL 17 in /nonexistent: install") });
  }, LIMIT_MS);
});

describe("proposers", () => {
  test("an old term, another system id, segment size or version: refused with the reason", async () => {
    const { proposer } = await pushed();
    const old = await proposer();
    await old.greet();
    expect(await old.requestVote(3)).toMatchObject({ voteGiven: false, term: 5 });
    old.close();
    for (const [over, reason] of [
      [{ systemId: 8n }, "system identifier is 8 at the proposer, 7 here"],
      [{ walSegmentSizeBytes: 16 * MIB }, "WAL segment size is 16777216 at the proposer, 1048576 here"],
      [{ pgVersion: 160001 }, "PostgreSQL 160001 cannot go on with the WAL of 170002"],
    ] as const) {
      const other = await proposer();
      expect(await refusal(other.greet(over))).toContain(reason);
      other.close();
    }
  }, LIMIT_MS);
});

const [GOOD, BAD] = ["2".repeat(32), "3".repeat(32)];

/** Two timelines with the same WAL, all of it committed. */
async function pushed(): Promise<{ node: Safekeeper; wal: SampleWal; proposer: () => Promise<ProposerDriver> }> {
  const node = await safekeeper();
  const wal = new SampleWal(START).growTo(START + 3 * MIB);
  for (const timelineId of [GOOD, BAD]) {
    const proposer = await node.proposer(timelineId);
    await proposer.pushNew(wal, 5);
    proposer.append(wal, { from: wal.endLsn, to: wal.endLsn, commitLsn: wal.endLsn });
    proposer.close();
  }
  return { node, wal, proposer: () => node.proposer(GOOD) };
}

/** All files below a directory with their content. */
function contents(directory: string): Record<string, string> {
  const names = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return Object.fromEntries(names.map((entry) => join(entry.parentPath, entry.name)).sort().map((path) => [path, Bun.hash(readFileSync(path)).toString(16)]));
}

describe("a safekeeper's damaged files", () => {
  const flip = (bytes: Buffer): Buffer => {
    bytes[Math.floor(bytes.length / 2)] ^= 4;
    return bytes;
  };
  const cases: readonly [string, RegExp, (bytes: Buffer) => Buffer, RegExp][] = [
    ["a flipped bit in a control file", /^safekeeper\.control$/, flip, /bad-control-file|checksum/],
    ["a truncated control file", /^safekeeper\.control$/, (bytes) => bytes.subarray(0, 40), /bad-control-file|checksum|bytes/],
    ["an empty control file", /^safekeeper\.control$/, () => Buffer.alloc(0), /bad-control-file|bytes/],
    ["a truncated WAL segment", /\.partial$/, (bytes) => bytes.subarray(0, 100), /wal-lost/],
  ];
  for (const [what, name, damage, code] of cases) {
    test(`${what}: that timeline is broken, others go on, nothing is deleted`, async () => {
      const { node, wal } = await pushed();
      await node.process.stop();
      const directory = node.timelineDirectory(BAD);
      const file = readdirSync(directory).find((entry) => name.test(entry));
      if (file === undefined) throw new Error(`no ${name} in ${readdirSync(directory).join(" ")}`);
      writeFileSync(join(directory, file), damage(readFileSync(join(directory, file))));
      const before = contents(directory);
      await node.start();
      expect(node.process.log()).toMatch(new RegExp(`timeline cannot be opened.*${BAD}.*(${code.source})`));
      expect((await node.status(BAD)).code).not.toBe(200);
      const proposer = await node.proposer(BAD);
      expect(await refusal(proposer.greet())).not.toBe("accepted");
      proposer.close();
      expect(contents(directory)).toEqual(before);
      const good = await node.proposer(GOOD);
      expect(await good.greet()).toMatchObject({ term: 5 });
      expect(await good.requestVote(6)).toMatchObject({ voteGiven: true, flushLsn: wal.endLsn });
      good.close();
    }, LIMIT_MS);
  }
});

describe("a full disk", () => {
  test("the safekeeper stops accepting and says so, what it acknowledged is there after a restart and when there is room", async () => {
    const mount = temporaryDirectory();
    const mounted = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", mount]);
    if (mounted.exitCode !== 0) return void console.log(`skipped: no small file system can be mounted here (${mounted.stderr.toString().trim()})`);
    cleanups.push(() => Bun.spawnSync(["umount", "-l", mount]));
    const directory = join(mount, "data");
    mkdirSync(directory);
    writeFileSync(join(mount, "ballast"), new Uint8Array(3 * MIB));
    const node = await new Safekeeper(directory).start();
    const wal = new SampleWal(START);
    const proposer = await node.proposer(GOOD);
    await proposer.greet();
    await proposer.requestVote(5);
    proposer.elected([{ term: 5, lsn: START }], START);
    let acknowledged = START;
    const filling = async (): Promise<void> => {
      for (let at = START; at < START + 8 * MIB; at = wal.endLsn) {
        wal.growTo(at + 200_000);
        proposer.append(wal, { from: at, to: wal.endLsn, commitLsn: acknowledged });
        acknowledged = (await proposer.flushedTo(wal.endLsn)).flushLsn;
      }
    };
    expect(await refusal(filling())).toMatch(/No space|disk-full|ENOSPC|cannot write/i);
    proposer.close();
    expect(acknowledged).toBeGreaterThan(START + 2 * MIB);
    expect(node.process.log()).toMatch(/disk-full|no space/i);
    await node.process.stop();
    await node.start();
    const full = await node.proposer(GOOD);
    expect(await full.greet()).toMatchObject({ term: 5 });
    full.close();
    rmSync(join(mount, "ballast"));
    const again = await node.proposer(GOOD);
    await again.greet();
    const vote = await again.requestVote(7);
    expect(vote.voteGiven).toBe(true);
    expect(vote.flushLsn).toBeGreaterThanOrEqual(acknowledged);
    const more = new SampleWal(vote.flushLsn, { previousLsn: START - 100, seed: 5 }).growTo(vote.flushLsn + 100_000);
    again.elected([{ term: 5, lsn: START }, { term: 7, lsn: vote.flushLsn }], vote.flushLsn);
    again.append(more, { from: more.startLsn, to: more.endLsn, commitLsn: acknowledged });
    expect((await again.flushedTo(more.endLsn)).flushLsn).toBe(more.endLsn);
    again.close();
  }, LIMIT_MS);
});
