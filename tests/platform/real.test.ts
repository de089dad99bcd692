import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { createConnection } from "node:net";
import { Cancelled } from "../../src/kit/errors.ts";
import { utf8, utf8ToString } from "../../src/kit/bytes.ts";
import { RealClock } from "../../src/platform/real/clock.ts";
import { RealFiles } from "../../src/platform/real/files.ts";
import { RealNetwork } from "../../src/platform/real/network.ts";
import { RealRandom } from "../../src/platform/real/random.ts";
import { selfSignedCertificate } from "../support/certificate.ts";
import { filesSuite } from "./files-suite.ts";
import { networkSuite } from "./network-suite.ts";

const clock = new RealClock();

filesSuite("real files", async () => {
  const root = mkdtempSync(join(tmpdir(), "strata-files-"));
  return { files: new RealFiles(), root, cleanUp: async () => rmSync(root, { recursive: true, force: true }) };
});

networkSuite("real network", () => ({ network: new RealNetwork(), run: (body) => body(), sleep: (durationMs) => clock.sleep(durationMs) }));

test("real clock: sleeps about as long as told, and stops at once when cancelled", async () => {
  const startMs = clock.monotonicMs();
  await clock.sleep(20);
  expect(clock.monotonicMs() - startMs).toBeGreaterThanOrEqual(18);
  const controller = new AbortController();
  const sleeping = clock.sleep(60_000, controller.signal);
  controller.abort();
  await expect(sleeping).rejects.toBeInstanceOf(Cancelled);
  await expect(clock.sleep(1, controller.signal)).rejects.toBeInstanceOf(Cancelled);
  let called = 0;
  const timer = clock.after(5, () => called++);
  clock.after(1, () => called++);
  timer.cancel();
  await clock.sleep(15);
  expect(called).toBe(1);
  // Longer than a signed 32-bit count of milliseconds: must not fire at once.
  const far = clock.after(2 ** 32, () => called++);
  await clock.sleep(5);
  far.cancel();
  expect(called).toBe(1);
});

test("real random stays in bounds", () => {
  const random = new RealRandom();
  for (let i = 0; i < 1000; i++) expect(random.below(7)).toBeWithin(0, 7);
  expect(random.bytes(33)).toHaveLength(33);
  expect(random.bytes(16)).not.toEqual(random.bytes(16));
});

test("an accepted connection becomes a TLS one after a request in the clear", async () => {
  const certificate = selfSignedCertificate();
  const network = new RealNetwork();
  const listener = await network.listen({ host: "127.0.0.1", port: 0 }, (plain) => {
    void (async () => {
      expect(utf8ToString((await plain.read()) ?? new Uint8Array())).toBe("SSL?");
      plain.write(utf8("S"));
      const secure = await network.upgradeToTlsServer(plain, certificate);
      const question = await secure.read();
      secure.write(utf8(`${utf8ToString(question ?? new Uint8Array())}!`));
      secure.write(new Uint8Array(3_000_000).fill(7));
      secure.end();
    })();
  });
  const received = await new Promise<Buffer>((resolve, reject) => {
    const raw = createConnection(listener.port, "127.0.0.1", () => raw.write("SSL?"));
    raw.once("error", reject);
    raw.once("data", () => {
      const parts: Buffer[] = [];
      const secure = connectTls({ socket: raw, ca: certificate.certPem, servername: "localhost" }, () => secure.write("hello"));
      secure.on("error", reject);
      secure.on("data", (part: Buffer) => parts.push(part));
      secure.on("close", () => resolve(Buffer.concat(parts)));
    });
  });
  await listener.close();
  expect(received.subarray(0, 6).toString()).toBe("hello!");
  expect(received.length).toBe(3_000_006);
  expect(received.subarray(6).every((value) => value === 7)).toBe(true);
});

test("a TLS handshake with garbage fails, and bytes sent ahead of it are refused", async () => {
  const network = new RealNetwork();
  const certificate = selfSignedCertificate();
  const outcome = async (afterRequest: string): Promise<string> => {
    const upgraded = Promise.withResolvers<string>();
    const listener = await network.listen({ host: "127.0.0.1", port: 0 }, (plain) => {
      void (async () => {
        await plain.read();
        if (afterRequest === "early") await clock.sleep(30);
        plain.write(utf8("S"));
        upgraded.resolve(await network.upgradeToTlsServer(plain, certificate).then(() => "secure", (error: { code: string }) => error.code));
      })();
    });
    const client = await network.connect({ host: "127.0.0.1", port: listener.port });
    client.write(utf8("SSL?"));
    await clock.sleep(10);
    client.write(utf8(afterRequest));
    const code = await upgraded.promise;
    client.destroy();
    await listener.close();
    return code;
  };
  expect(await outcome("early")).toBe("data-before-tls");
  expect(await outcome("nonsense that is no handshake")).toBe("tls-handshake-failed");
});

test("a lock ends with the process that held it, even by SIGKILL", async () => {
  const root = mkdtempSync(join(tmpdir(), "strata-lock-"));
  try {
    const path = join(root, "lock");
    const source = `import { RealFiles } from ${JSON.stringify(join(import.meta.dir, "../../src/platform/real/files.ts"))};
      await new RealFiles().lock(${JSON.stringify(path)});
      const child = Bun.spawn(["sleep", "5"]);
      console.log(child.pid);
      setInterval(() => {}, 1000);`;
    const holder = Bun.spawn([process.execPath, "-e", source], { stdout: "pipe", stderr: "inherit" });
    const { value } = await holder.stdout.getReader().read();
    const files = new RealFiles();
    await expect(files.lock(path)).rejects.toThrow("locked by another process");
    holder.kill("SIGKILL");
    await holder.exited;
    await (await files.lock(path)).release();
    process.kill(Number(new TextDecoder().decode(value)), "SIGKILL");
  } finally {
    rmSync(root, { recursive: true });
  }
});
