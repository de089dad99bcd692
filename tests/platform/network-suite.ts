/** What every network must do. Run over the real one and the virtual one. */
import { expect, test } from "bun:test";
import { isStrataError } from "../../src/kit/errors.ts";
import { utf8, utf8ToString } from "../../src/kit/bytes.ts";
import type { Connection, Network } from "../../src/platform/network.ts";

export interface NetworkUnderTest {
  readonly network: Network;
  /** Runs a test to its end: the virtual network must have its clock driven meanwhile. */
  run(body: () => Promise<void>): Promise<void>;
  sleep(durationMs: number): Promise<void>;
}

export async function readAll(connection: Connection): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for (let part = await connection.read(); part !== null; part = await connection.read()) parts.push(part);
  return Buffer.concat(parts);
}

async function codeOf(action: Promise<unknown>): Promise<string> {
  try {
    await action;
  } catch (error) {
    if (isStrataError(error)) return error.code;
    throw error;
  }
  return "passed";
}

interface Pair {
  readonly client: Connection;
  readonly server: Connection;
}

/** Function length on purpose: it is a list of tests. */
export function networkSuite(name: string, make: () => NetworkUnderTest): void {
  function check(what: string, body: (pair: Pair, subject: NetworkUnderTest) => Promise<void>): void {
    test(`${name}: ${what}`, async () => {
      const subject = make();
      await subject.run(async () => {
        const accepted = Promise.withResolvers<Connection>();
        const listener = await subject.network.listen({ host: "127.0.0.1", port: 0 }, accepted.resolve);
        const client = await subject.network.connect({ host: "127.0.0.1", port: listener.port });
        const server = await accepted.promise;
        try {
          await body({ client, server }, subject);
        } finally {
          client.destroy();
          server.destroy();
          await listener.close();
        }
      });
    });
  }

  check("bytes arrive in order, whole, in both directions", async ({ client, server }) => {
    client.write(utf8("he"));
    client.write(utf8("llo"));
    client.end();
    expect(utf8ToString(await readAll(server))).toBe("hello");
    server.write(utf8("bye"));
    server.end();
    expect(utf8ToString(await readAll(client))).toBe("bye");
    await client.closed;
    await server.closed;
  });

  check("half-close: our end still lets the other side talk", async ({ client, server }) => {
    client.end();
    expect(await server.read()).toBeNull();
    expect(await server.read()).toBeNull();
    for (let i = 0; i < 100; i++) server.write(new Uint8Array(10_000).fill(i));
    server.end();
    const bytes = await readAll(client);
    expect(bytes.length).toBe(1_000_000);
    expect(bytes.every((value, index) => value === Math.floor(index / 10_000))).toBe(true);
  });

  check("a slow reader holds the writer back, and nothing is lost", async ({ client, server }, { sleep }) => {
    const total = 40 * 1024 * 1024;
    const block = new Uint8Array(256 * 1024);
    let sent = 0;
    const writer = (async () => {
      while (sent < total) {
        const bytes = block.slice();
        new DataView(bytes.buffer).setUint32(0, sent);
        client.write(bytes);
        sent += bytes.length;
        await client.drained();
      }
      client.end();
    })();
    await sleep(300);
    expect(sent).toBeLessThan(total / 2);
    let received = 0;
    let bad = 0;
    let pending = Buffer.alloc(0);
    for (let part = await server.read(); part !== null; part = await server.read()) {
      pending = Buffer.concat([pending, part]);
      while (pending.length >= block.length) {
        if (pending.readUInt32BE(0) !== received) bad++;
        received += block.length;
        pending = pending.subarray(block.length);
      }
    }
    await writer;
    expect([received, bad]).toEqual([total, 0]);
    expect(client.bufferedBytes).toBe(0);
  });

  check("a destroyed connection fails the reads of both sides, after what had arrived", async ({ client, server }, { sleep }) => {
    client.write(utf8("last"));
    expect(utf8ToString((await server.read()) ?? new Uint8Array())).toBe("last");
    const pending = codeOf(server.read());
    await sleep(5);
    client.destroy();
    expect(await pending).toBe("connection-lost");
    expect(await codeOf(client.read())).toBe("connection-lost");
    await Promise.all([client.closed, server.closed]);
    server.write(utf8("ignored"));
    await server.drained();
    expect(server.bufferedBytes).toBe(0);
  });

  check("one read at a time", async ({ client, server }) => {
    const first = server.read();
    await expect(server.read()).rejects.toThrow("second read");
    client.write(utf8("x"));
    expect(utf8ToString((await first) ?? new Uint8Array())).toBe("x");
  });

  check("reads own their bytes", async ({ client, server }) => {
    const kept: Uint8Array[] = [];
    for (let i = 0; i < 20; i++) {
      client.write(new Uint8Array(1000).fill(i));
      let got = 0;
      while (got < 1000) {
        const part = await server.read();
        if (part === null) throw new Error("ended early");
        kept.push(part);
        got += part.length;
      }
    }
    const all = Buffer.concat(kept);
    expect(all.every((value, index) => value === Math.floor(index / 1000))).toBe(true);
  });

  test(`${name}: a port in use, a port nobody listens on, a cancelled connect`, async () => {
    const subject = make();
    await subject.run(async () => {
      const { network } = subject;
      const listener = await network.listen({ host: "127.0.0.1", port: 0 }, (connection) => connection.destroy());
      expect(await codeOf(network.listen({ host: "127.0.0.1", port: listener.port }, () => {}))).toBe("port-in-use");
      await listener.close();
      expect(await codeOf(network.connect({ host: "127.0.0.1", port: listener.port }))).toBe("connect-failed");
      const aborted = AbortSignal.abort();
      await expect(network.connect({ host: "127.0.0.1", port: listener.port }, { signal: aborted })).rejects.toThrow("cancelled");
    });
  });
}
