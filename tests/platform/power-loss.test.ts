/** The real files with a shadow: every promise of files, and what a loss of power leaves, also after kills in between. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { utf8 } from "../../src/kit/bytes.ts";
import type { FileSystem } from "../../src/platform/files.ts";
import { withPowerLossShadow } from "../../src/platform/power-loss/from-environment.ts";
import { losePower } from "../../src/platform/power-loss/lose-power.ts";
import { PowerLossFiles } from "../../src/platform/power-loss/power-loss-files.ts";
import { RealFiles } from "../../src/platform/real/files.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { SeededRandom } from "../../src/platform/virtual/seeded-random.ts";
import { filesSuite } from "./files-suite.ts";

filesSuite("files with a shadow", async () => {
  const base = mkdtempSync(join(tmpdir(), "strata-shadow-"));
  const root = join(base, "live");
  mkdirSync(root);
  return { files: new PowerLossFiles(new RealFiles(), { roots: [root], shadowDirectory: join(base, "shadow") }), root, cleanUp: async () => rmSync(base, { recursive: true, force: true }) };
});

/** A directory on which power can fail and processes can be killed. */
class Machine {
  readonly base = mkdtempSync(join(tmpdir(), "strata-power-"));
  readonly root = join(this.base, "live");
  readonly shadowDirectory = join(this.base, "shadow");
  files: FileSystem = this.boot();

  /** As a new process sees it. */
  boot(): FileSystem {
    this.files = new PowerLossFiles(new RealFiles(), { roots: [this.root], shadowDirectory: this.shadowDirectory });
    return this.files;
  }
  crash(seed: number) {
    const loss = losePower({ root: this.root, shadowDirectory: this.shadowDirectory, random: new SeededRandom(seed) });
    this.boot();
    return loss;
  }
  async write(name: string, bytes: Uint8Array, options: { position?: number; sync?: boolean } = {}): Promise<void> {
    const file = await this.files.open(join(this.root, name), "create");
    await file.write(bytes, options.position ?? 0);
    if (options.sync === true) await file.dataSync();
    await file.close();
  }
  read(name: string): string {
    return readFileSync(join(this.root, name), "latin1");
  }
  list(name = "."): string {
    return readdirSync(join(this.root, name)).sort().join("+");
  }
}

async function onMachine(body: (machine: Machine) => Promise<void>): Promise<void> {
  const machine = new Machine();
  try {
    await machine.files.makeDirectory(machine.root);
    await body(machine);
  } finally {
    rmSync(machine.base, { recursive: true, force: true });
  }
}

test("what was synced survives, what was not by sectors; a kill in between changes nothing", async () => {
  const outcomes = new Set<string>();
  for (let seed = 0; seed < 30; seed++) {
    await onMachine(async (machine) => {
      await machine.write("f", new Uint8Array(2048).fill(0x31), { sync: true });
      await machine.files.syncDirectory(machine.root);
      if (seed % 3 === 0) machine.boot();
      await machine.write("f", new Uint8Array(1024).fill(0x32), { position: 512 });
      if (seed % 3 === 1) machine.boot();
      await machine.write("f", new Uint8Array(512).fill(0x33), { position: 2048 });
      machine.crash(seed);
      outcomes.add(machine.read("f").replace(/(.)\1{511}/gs, "$1").replaceAll("\0", "0"));
    });
  }
  expect([...outcomes].every((outcome) => /^1[12][12]1[03]?$/.test(outcome))).toBe(true);
  expect(outcomes.size).toBeGreaterThan(4);
}, 30_000);

test("a sync makes all earlier writes durable, those of killed processes too", () => onMachine(async (machine) => {
  await machine.write("f", utf8("one"));
  machine.boot();
  await machine.write("f", utf8("two"), { position: 3, sync: true });
  await machine.files.syncDirectory(machine.root);
  machine.crash(1);
  expect(machine.read("f")).toBe("onetwo");
}));

test("a cut is durable after the sync, not before, and does not bring old bytes back", async () => {
  const outcomes = new Set<string>();
  for (let seed = 0; seed < 40; seed++) {
    await onMachine(async (machine) => {
      await machine.write("f", new Uint8Array(1536).fill(0x31), { sync: true });
      await machine.files.syncDirectory(machine.root);
      const file = await machine.files.open(join(machine.root, "f"), "read-write");
      await file.truncate(512);
      if (seed % 2 === 0) {
        await file.write(utf8("x"), 1535);
        await file.sync();
      }
      machine.crash(seed);
      const content = machine.read("f");
      if (seed % 2 === 0) expect(content).toBe(`${"1".repeat(512)}${"\0".repeat(1023)}x`);
      else outcomes.add(content.replace(/(.)\1{511}/gs, "$1").replaceAll("\0", "0"));
    });
  }
  for (const outcome of outcomes) expect(outcome).toMatch(/^1([01][01])?$/);
  expect(outcomes.size).toBeGreaterThan(2);
}, 30_000);

test("names: durable after syncDirectory, renames all or nothing, across directories too", async () => {
  const outcomes = new Set<string>();
  for (let seed = 0; seed < 30; seed++) {
    await onMachine(async (machine) => {
      await machine.files.makeDirectory(join(machine.root, "d"));
      await machine.write("old", utf8("1"), { sync: true });
      await machine.files.syncDirectory(machine.root);
      await machine.write("new.tmp", utf8("2"), { sync: true });
      if (seed % 2 === 0) machine.boot();
      await machine.files.rename(join(machine.root, "new.tmp"), join(machine.root, "old"));
      await machine.files.rename(join(machine.root, "old"), join(machine.root, "d/moved"));
      if (seed % 4 === 0) await machine.files.syncDirectory(join(machine.root, "d"));
      machine.crash(seed);
      outcomes.add(`${machine.list()} ${machine.list("d")}=${machine.read(machine.list("d") === "" ? "old" : "d/moved")}`);
    });
  }
  const possible = ["d moved=2", "d+new.tmp moved=2", "d+new.tmp+old =1", "d+old =1", "d+old =2"];
  expect([...outcomes].filter((outcome) => !possible.includes(outcome))).toEqual([]);
  expect(outcomes.size).toBeGreaterThan(2);
}, 30_000);

test("directories after a loss of power are what some prefix of their changes made", async () => {
  const step = fc.record({ what: fc.constantFrom("create", "remove", "rename", "sync", "kill"), a: fc.constantFrom("x", "y", "z"), b: fc.constantFrom("x", "y", "z") });
  await fc.assert(
    fc.asyncProperty(fc.nat(), fc.array(step, { maxLength: 12 }), (seed, steps) => onMachine(async (machine) => {
      const path = (name: string): string => join(machine.root, name);
      let states = [""];
      for (const { what, a, b } of steps) {
        if (what === "create") await machine.write(a, new Uint8Array(0));
        else if (what === "sync") await machine.files.syncDirectory(machine.root);
        else if (what === "kill") machine.boot();
        else await (what === "remove" ? machine.files.remove(path(a)) : machine.files.rename(path(a), path(b))).catch(() => {});
        const now = machine.list();
        states = what === "sync" ? [now] : [...states, now];
      }
      machine.crash(seed);
      expect(states).toContain(machine.list());
    })),
    { numRuns: 50 },
  );
}, 30_000);

test("what others wrote below a root counts as unsynced, what was there at first as durable, a new root as another one", () => onMachine(async (machine) => {
  rmSync(machine.root, { recursive: true });
  mkdirSync(machine.root);
  writeFileSync(join(machine.root, "before"), "there");
  machine.boot();
  await machine.files.exists(machine.root);
  await machine.write("synced", utf8("s"), { sync: true });
  writeFileSync(join(machine.root, "foreign"), "f");
  await machine.files.syncDirectory(machine.root);
  expect(machine.list()).toBe("before+foreign+synced");
  machine.crash(3);
  expect(machine.read("before")).toBe("there");
  expect(machine.read("synced")).toBe("s");
  rmSync(machine.root, { recursive: true });
  machine.boot();
  await machine.files.makeDirectory(join(machine.root, "deep/er"));
  await machine.files.syncDirectory(machine.root);
  machine.crash(4);
  expect(machine.list()).toBe("deep");
}));

test("without a shadow there is nothing to lose, which is an error", () => onMachine(async (machine) => {
  machine.crash(1);
  expect(() => machine.crash(1)).toThrow("there is no shadow");
}));

test("the environment turns it on, and wants absolute paths", () => {
  const platform = realPlatform();
  expect(withPowerLossShadow(platform, {})).toBe(platform);
  expect(() => withPowerLossShadow(platform, { STRATA_POWER_LOSS_SHADOW: "/tmp/x" })).toThrow("STRATA_POWER_LOSS_ROOTS");
  expect(withPowerLossShadow(platform, { STRATA_POWER_LOSS_SHADOW: "/tmp/x", STRATA_POWER_LOSS_ROOTS: "/tmp/y:/tmp/z" }).files).toBeInstanceOf(PowerLossFiles);
});
