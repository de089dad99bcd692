/** `bun run verify|sim|bench NAME [arguments]`: runs one program of tests/verify, tests/simulation or tests/bench; without a name, lists them. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");
const FOLDERS: Readonly<Record<string, string>> = { verify: "tests/verify", sim: "tests/simulation", bench: "tests/bench" };

function programs(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder).filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts")).map((name) => name.slice(0, -3)).sort();
}

async function main(kind: string, name: string | undefined, args: readonly string[]): Promise<number> {
  const folder = join(ROOT, FOLDERS[kind] ?? "");
  const known = programs(folder);
  if (name === undefined || !known.includes(name)) {
    console.error(`usage: bun run ${kind} NAME\nnames: ${known.join(", ") || "none yet"}`);
    return 2;
  }
  // In a session of its own, so that each signal reaches it once: from here, be it Ctrl-C, which goes to a whole group, or for us alone.
  const child = Bun.spawn([process.execPath, join(folder, `${name}.ts`), ...args], { stdio: ["inherit", "inherit", "inherit"], detached: true });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => child.kill(signal));
  const code = await child.exited;
  if (child.signalCode !== null) console.error(`${name}: ended by ${child.signalCode}`);
  return code;
}

const [kind = "", name, ...args] = process.argv.slice(2);
process.exit(await main(kind, name, args));
