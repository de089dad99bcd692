/** The example program against a real broker: under Bun, under Node as it is, and bundled for a Node that takes no TypeScript. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RunningBroker, startBroker } from "../../src/broker/broker.ts";
import { BROKER_DEFAULTS } from "../../src/broker/config.ts";
import { generateTokenKeys, signToken } from "../../src/http/auth.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { newCertificate, selfSignedCertificate } from "../support/certificate.ts";

const EXAMPLE = join(import.meta.dir, "../examples/broker-gossip.ts");
const root = mkdtempSync(join(tmpdir(), "strata-broker-example-"));
const file = (name: string, text: string): string => {
  writeFileSync(join(root, name), text);
  return join(root, name);
};
const brokers: RunningBroker[] = [];
/** Arguments of the example: in plain text, and over TLS with a token. */
const ways: Record<string, readonly string[]> = {};

/** The version of the Node that is installed; zeros without one. */
function nodeVersion(): readonly [major: number, minor: number] {
  const found = Bun.which("node") === null ? "" : Bun.spawnSync(["node", "--version"]).stdout.toString();
  const match = /^v(\d+)\.(\d+)/.exec(found);
  return match === null ? [0, 0] : [Number(match[1]), Number(match[2])];
}

const [major, minor] = nodeVersion();
const takesTypeScript = major >= 24 || (major === 23 && minor >= 6) || (major === 22 && minor >= 18);
if (major < 20) console.log("skipped: no Node from 20 on is installed");
else if (!takesTypeScript) console.log(`skipped: Node ${major}.${minor} takes no TypeScript, which begins with 22.18; the bundle runs`);

beforeAll(async () => {
  const keys = generateTokenKeys();
  const { certPem, keyPem } = selfSignedCertificate();
  const tls = { certPath: file("server.crt", certPem), keyPath: file("server.key", keyPem) };
  const start = async (config: Partial<typeof BROKER_DEFAULTS>): Promise<number> => {
    const broker = await startBroker({ ...BROKER_DEFAULTS, listenPort: 0, ...config }, { platform: realPlatform(), log: new RecordingLogger(), version: "test" });
    brokers.push(broker);
    return broker.port;
  };
  ways.plain = [`http://127.0.0.1:${await start({})}`];
  const secure = await start({ tls, authPublicKeyPath: file("key.pem", keys.publicKeyPem) });
  const token = ["--token-file", file("token", signToken({ scope: "safekeeperdata" }, keys.privateKeyPem))];
  ways["TLS and a token"] = [`https://localhost:${secure}`, "--ca", tls.certPath, ...token];
  ways["TLS by address"] = [`https://127.0.0.1:${secure}`, "--ca", tls.certPath, ...token];
  ways["no token"] = [`https://localhost:${secure}`, "--ca", tls.certPath];
  ways["a stranger's certificate"] = [`https://localhost:${secure}`, "--ca", file("stranger.crt", newCertificate().certPem), ...token];
  ways["a stranger's certificate by address"] = [`https://127.0.0.1:${secure}`, "--ca", join(root, "stranger.crt"), ...token];
});
afterAll(async () => {
  for (const broker of brokers) await broker.stop();
  rmSync(root, { recursive: true });
});

async function run(command: readonly string[]): Promise<{ readonly code: number; readonly out: string; readonly err: string }> {
  const child = Bun.spawn([...command], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const late = setTimeout(() => child.kill("SIGKILL"), 30_000);
  const [out, err, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  clearTimeout(late);
  return { code, out, err };
}

async function everyWay(program: readonly string[]): Promise<void> {
  for (const way of ["plain", "TLS and a token", "TLS by address"]) {
    const { code, out, err } = await run([...program, ...(ways[way] ?? [])]);
    expect([way, code, out.split("\n").sort(), err]).toEqual([way, 0, ["", "discovered: sk-1.example:5454", "done", "info: safekeeper 1 has committed up to 1000"], ""]);
  }
  expect(await run([...program, ...(ways["no token"] ?? [])])).toMatchObject({ code: 1, err: expect.stringContaining("authorization") });
  for (const way of ["a stranger's certificate", "a stranger's certificate by address"]) expect([way, await run([...program, ...(ways[way] ?? [])])]).toMatchObject([way, { code: 1, err: expect.stringContaining("certificate") }]);
}

describe("the example", () => {
  test("under Bun", () => everyWay([process.execPath, EXAMPLE]), 60_000);

  test.skipIf(!takesTypeScript)("under Node, as it is", () => everyWay(["node", EXAMPLE]), 60_000);

  test.skipIf(major < 20)("under Node, bundled", async () => {
    const built = await Bun.build({ entrypoints: [EXAMPLE], target: "node", outdir: root, naming: "gossip.mjs" });
    expect(built.success).toBe(true);
    await everyWay(["node", join(root, "gossip.mjs")]);
  }, 60_000);
});
