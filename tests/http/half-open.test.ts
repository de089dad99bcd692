/** Clients that begin a request and never end it. */
import { expect, test } from "bun:test";
import { connect } from "node:net";
import { z } from "zod";
import { createHttpApp } from "../../src/http/app.ts";
import { jsonReply } from "../../src/http/route.ts";
import { serveHttp } from "../../src/http/serve.ts";
import { Metrics } from "../../src/observability/metrics.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { testLogger } from "../support/test-logger.ts";

test("a body that never comes whole is answered 408, logged once, and holds up no stop", async () => {
  const { clock, random } = realPlatform();
  const log = testLogger();
  const app = createHttpApp({ role: "test", log, auth: null, metrics: new Metrics(), version: "0", clock, random, bodyTimeoutMs: 150 });
  app.route({ method: "post", path: "/v1/thing", permission: { kind: "public" }, summary: "Takes a thing", body: z.object({ a: z.number() }), responses: { 200: { description: "taken", schema: z.null() } } }, () => jsonReply(200, null));
  const server = serveHttp(app, { host: "127.0.0.1", port: 0 });
  try {
    const socket = connect(server.port, "127.0.0.1");
    socket.on("error", () => undefined);
    socket.write(`POST /v1/thing HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"a":`);
    const answer = await new Promise<string>((resolve) => socket.once("data", (bytes: Buffer) => resolve(bytes.toString())));
    expect(answer).toMatch(/^HTTP\/1.1 408 /);
    expect(answer).toContain("did not come within 150 ms");
    expect(log.entries.filter(({ fields }) => fields.error !== undefined).length).toBe(1);
    const whole = await fetch(`http://127.0.0.1:${server.port}/v1/thing`, { method: "POST", body: `{"a":1}` });
    expect(whole.status).toBe(200);
    socket.destroy();
  } finally {
    await server.stop();
  }
});
