/**
 * What a proposer does with a safekeeper that answers what it cannot use, over real sockets: the connection is dropped with a typed
 * error and one line, tried again, and the two good safekeepers make a majority all the while.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Candidacy } from "../../../src/compute/proposer/candidacy.ts";
import type { CoreEffect } from "../../../src/compute/proposer/core-types.ts";
import { StrataError } from "../../../src/kit/errors.ts";
import type { LogEntry, RecordingLogger } from "../../../src/observability/recording-logger.ts";
import type { Clock } from "../../../src/platform/clock.ts";
import type { Listener } from "../../../src/platform/network.ts";
import { EMPTY_CONFIGURATION } from "../../../src/safekeeper/api/membership.ts";
import { EMPTY_HOT_STANDBY_FEEDBACK } from "../../../src/safekeeper/api/proposer-messages.ts";
import { decodeProposerMessage, encodeAcceptorMessage } from "../../../src/safekeeper/api/proposer-protocol.ts";
import { SAFEKEEPER_DEFAULTS } from "../../../src/safekeeper/config.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../../src/safekeeper/safekeeper.ts";
import { listenPg } from "../../../src/wire/listen.ts";
import type { ServedCopyStream } from "../../../src/wire/pg-session.ts";
import type { PgAuthenticator } from "../../../src/wire/startup.ts";
import { platform, ProposerDriver } from "../../safekeeper/support/driver.ts";
import { MIB, SampleWal } from "../../safekeeper/support/sample-wal.ts";
import { testLogger } from "../../support/test-logger.ts";

const TENANT = "1".repeat(32);
const TIMELINE = "2".repeat(32);
const START = 5 * MIB + 3 * 8192 + 1000;

let directory: string;
let log: RecordingLogger;
const stops: (() => unknown)[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-proposer-bad-"));
  log = testLogger();
});
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
  rmSync(directory, { recursive: true, force: true });
});

const good: RunningSafekeeper[] = [];

/** Two safekeepers with the same WAL, of which nobody has said that it is committed. */
async function twoSafekeepers(): Promise<SampleWal> {
  good.length = 0;
  const anyPort = { host: "127.0.0.1", port: 0 };
  const wal = new SampleWal(START).growTo(START + 50_000);
  for (const nodeId of [1, 2]) {
    const running = await startSafekeeper({ ...SAFEKEEPER_DEFAULTS, dataDirectory: join(directory, String(nodeId)), nodeId, pgAddress: anyPort, httpAddress: anyPort, brokerEndpoint: null }, { platform, log: testLogger() });
    stops.push(() => running.stop());
    good.push(running);
    const proposer = await ProposerDriver.connect({ port: running.pgPort, tenantId: TENANT, timelineId: TIMELINE });
    await proposer.pushNew(wal, 1);
    proposer.close();
  }
  return wal;
}

type Behaviour = (copy: ServedCopyStream) => Promise<void>;

/** A safekeeper up to its CopyBoth, which then does as it likes. */
async function fake(behave: Behaviour, auth: PgAuthenticator | null = null): Promise<number> {
  const listener: Listener = await listenPg({
    address: { host: "127.0.0.1", port: 0 }, platform, log: testLogger(), auth, tls: null,
    session: () => ({ handler: { connected: async () => undefined, query: async (session) => behave(session.copyBoth()), disconnected: () => undefined } }),
  });
  stops.push(() => listener.close());
  return listener.port;
}

/** A server that is only bytes. */
async function bytesOnly(onConnect: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    onConnect(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  stops.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as { port: number }).port;
}

/** Time that passes faster. */
function fastClock(factor: number): Clock {
  const { clock } = platform;
  return {
    monotonicMs: () => clock.monotonicMs() * factor,
    wallMs: () => clock.wallMs(),
    sleep: (durationMs, signal) => clock.sleep(durationMs / factor, signal),
    after: (delayMs, callback) => clock.after(delayMs / factor, callback),
  };
}

const lost = (port: number): readonly LogEntry[] => log.entries.filter(({ message, fields }) => message === "safekeeper connection lost" && fields.safekeeper === `127.0.0.1:${port}`);

/** Settles the log with the two good ones and the one at `port`; returns how the connections to that one ended. */
async function settleBeside(port: number, options: { readonly losses: number; readonly clock?: Clock } = { losses: 2 }): Promise<readonly StrataError[]> {
  const wal = await twoSafekeepers();
  const settled = Promise.withResolvers<number>();
  const onEffect = (effect: CoreEffect): void => {
    if (effect.kind === "settled") settled.resolve(effect.lsn);
    else if (effect.kind === "superseded" || effect.kind === "start-mismatch") settled.reject(effect.error);
  };
  const candidacy = new Candidacy({
    identity: { tenantId: TENANT, timelineId: TIMELINE, systemId: 7n, pgVersion: 170002, walSegmentSizeBytes: MIB },
    configuration: EMPTY_CONFIGURATION, mode: { kind: "sync" }, localWal: null, log, onEffect, platform: options.clock === undefined ? platform : { ...platform, clock: options.clock },
    safekeepers: [{ host: "127.0.0.1", port }, ...good.map(({ pgPort }) => ({ host: "127.0.0.1", port: pgPort }))],
  });
  candidacy.start();
  try {
    expect(await settled.promise).toBe(wal.endLsn);
    for (let left = 400; left > 0 && lost(port).length < options.losses; left--) await Bun.sleep(10);
  } finally {
    await candidacy.close();
  }
  const entries = lost(port);
  for (const { fields } of entries) expect(fields).toMatchObject({ tenantId: TENANT, timelineId: TIMELINE });
  expect(entries.length).toBeGreaterThanOrEqual(options.losses);
  for (const { pgPort } of good) expect(lost(pgPort)).toEqual([]);
  return entries.map(({ fields }) => fields.error as StrataError);
}

const codes = (errors: readonly StrataError[]): string[] => [...new Set(errors.map(({ kind, code }) => `${kind} ${code}`))];

describe("a safekeeper that answers", () => {
  test("garbage before the handshake", async () => {
    const port = await bytesOnly((socket) => socket.end(Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n")));
    expect(codes(await settleBeside(port))).toEqual(["fix-input protocol-violation"]);
  });

  test("a message too long to be one", async () => {
    const port = await bytesOnly((socket) => socket.write(Buffer.from("527fffffff00000000", "hex")));
    expect(codes(await settleBeside(port))).toEqual(["fix-input protocol-violation"]);
  });

  test("garbage after the handshake, and an answer cut short", async () => {
    const greeting = encodeAcceptorMessage({ kind: "greeting", nodeId: 9, configuration: EMPTY_CONFIGURATION, term: 0 }, 3);
    const answers = [Buffer.from("what is this"), greeting.subarray(0, 7)];
    let next = 0;
    const port = await fake(async (copy) => {
      copy.write(answers[next++ % answers.length]);
      await copy.read();
      await copy.read();
    });
    const errors = await settleBeside(port, { losses: 3 });
    for (const { name } of errors) expect(name).toBe("StrataError");
    expect(codes(errors)).toEqual(["fix-input bad-acceptor-message", "corrupt truncated"]);
  });

  test("a refusal: an expired or foreign token", async () => {
    const port = await fake(async () => undefined, { authenticate: async () => Promise.reject(new StrataError("forbidden", "bad-token", "the token has expired")) });
    const errors = await settleBeside(port);
    expect(codes(errors)).toEqual(["unauthenticated password-needed"]);
  });

  test("for what was not asked: a vote before its greeting, WAL acknowledged that was never sent", async () => {
    let round = 0;
    const port = await fake(async (copy) => {
      const send = (message: Parameters<typeof encodeAcceptorMessage>[0]): void => copy.write(encodeAcceptorMessage(message, 3));
      const early = round++ % 2 === 0;
      if (early) send({ kind: "vote", generation: 0, term: 1, voteGiven: true, flushLsn: 0, truncateLsn: 0, termHistory: [] });
      for (let bytes = await copy.read(); bytes !== null; bytes = await copy.read()) {
        const message = decodeProposerMessage(bytes, 3);
        if (message.kind === "greeting") send({ kind: "greeting", nodeId: 9, configuration: EMPTY_CONFIGURATION, term: 0 });
        else if (message.kind === "vote-request") send({ kind: "vote", generation: 0, term: message.term, voteGiven: true, flushLsn: 0, truncateLsn: 0, termHistory: [] });
        else if (message.kind === "elected") send({ kind: "append", generation: 0, term: message.term, flushLsn: 2 ** 50, commitLsn: 0, hotStandbyFeedback: EMPTY_HOT_STANDBY_FEEDBACK, pageserverFeedback: null });
      }
    });
    const errors = await settleBeside(port);
    expect(codes(errors)).toEqual(["conflict protocol-violation"]);
    expect(errors.some(({ message }) => message.includes("acknowledges"))).toBe(true);
  });
});

describe("a safekeeper that is half open", () => {
  const clock = fastClock(40);

  test("after TCP's handshake", async () => {
    const port = await bytesOnly(() => undefined);
    expect(codes(await settleBeside(port, { losses: 1, clock }))).toEqual(["unavailable connect-timeout"]);
  });

  test("after the session's start", async () => {
    const ready = Buffer.from("520000000800000000" + "5a0000000549", "hex");
    const port = await bytesOnly((socket) => socket.once("data", () => socket.write(ready)));
    expect(codes(await settleBeside(port, { losses: 1, clock }))).toEqual(["unavailable safekeeper-silent"]);
  });

  test("after its greeting was asked for", async () => {
    const port = await fake(async (copy) => {
      while ((await copy.read()) !== null) continue;
    });
    expect(codes(await settleBeside(port, { losses: 1, clock }))).toEqual(["unavailable safekeeper-silent"]);
  });
});
