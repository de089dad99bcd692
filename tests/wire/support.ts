/** A server with a handler that does a bit of everything, and the time and randomness tests need. */
import { Cancelled } from "../../src/kit/errors.ts";
import type { Clock } from "../../src/platform/clock.ts";
import type { Random } from "../../src/platform/random.ts";
import { StrataError } from "../../src/kit/errors.ts";
import { utf8 } from "../../src/kit/bytes.ts";
import type { PgHandler, PgSession } from "../../src/wire/pg-session.ts";

export const testClock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  sleep: (durationMs, signal) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, durationMs);
      signal?.addEventListener("abort", () => {
        clearTimeout(timer);
        reject(new Cancelled());
      });
    }),
  after: (delayMs, callback) => {
    const timer = setTimeout(callback, delayMs);
    return { cancel: () => clearTimeout(timer) };
  },
};

export const testRandom: Random = {
  float: () => Math.random(),
  below: (limit) => Math.floor(Math.random() * limit),
  bytes: (length) => crypto.getRandomValues(new Uint8Array(length)),
};

export class EchoHandler implements PgHandler {
  sessions: PgSession[] = [];
  disconnects = 0;

  async connected(session: PgSession): Promise<void> {
    this.sessions.push(session);
    if (session.parameters.get("database") === "forbidden") throw new StrataError("forbidden", "no-entry", "not this database");
  }

  disconnected(): void {
    this.disconnects++;
  }

  async query(session: PgSession, sql: string): Promise<void> {
    if (sql === "rows") {
      session.sendNotice("NOTICE", "00000", "have some rows");
      session.sendResult([{ name: "a" }, { name: "b", typeOid: 23 }], [["x", "1"], [null, "2"], [utf8("ü"), "3"]], "SELECT 3");
    } else if (sql === "fail") {
      throw new StrataError("not-found", "no-timeline", "timeline is missing", { cause: new Error("the cause") });
    } else if (sql === "bug") {
      throw new Error("unexpected");
    } else if (sql === "echo") {
      const copy = session.copyBoth();
      for (let data = await copy.read(); data !== null; data = await copy.read()) copy.write(utf8("<"), data, utf8(">"));
    } else if (sql.startsWith("send ")) {
      const copy = session.copyOut();
      for (let at = 0; at < Number(sql.slice(5)); at++) {
        copy.write(new Uint8Array(8192).fill(at));
        await copy.drained();
      }
      copy.done();
      session.sendCommandComplete("COPY");
    } else if (sql === "halfway") {
      session.copyOut().write(utf8("some"));
      throw new StrataError("corrupt", "bad-layer", "the layer is broken");
    } else if (sql === "count") {
      const copy = session.copyIn();
      let bytes = 0;
      for (let data = await copy.read(); data !== null; data = await copy.read()) bytes += data.length;
      session.sendCommandComplete(`COPY ${bytes}`);
    } else if (sql === "wait") {
      await testClock.sleep(60_000, session.signal);
    } else if (sql === "hang") {
      // Ends when its signal says so, without a word.
      await new Promise((resolve) => session.signal.addEventListener("abort", resolve));
    }
  }
}
