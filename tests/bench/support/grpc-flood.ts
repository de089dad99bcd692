/**
 * What a fan-out could cost at best: a server that knows its one message from the start and sends it to every caller as fast as it is
 * taken, once all callers are there. Prints its port. A program of its own, so that its processor time can be told.
 *
 *   bun grpc-flood.ts grpc-js|http2|http2-batched CALLERS
 *
 * - grpc-js: the library alone, `call.write` of one message after the other;
 * - http2: the runtime's HTTP/2 alone, one message a write;
 * - http2-batched: as the broker writes at its best, 32 KiB of messages a write.
 */
import { createServer, type ServerHttp2Stream } from "node:http2";
import { Server, ServerCredentials, type ServerWritableStream } from "@grpc/grpc-js";
import { encodeMessage } from "../../../src/broker/api/messages.ts";
import { BROKER_METHODS } from "../../../src/broker/api/service.ts";
import { frameMessage } from "../../../src/broker/registry/frame.ts";
import { FLOOD_INFO } from "./flood-info.ts";

const MESSAGE = encodeMessage({ type: "timeline-info", info: FLOOD_INFO });
const FRAME = frameMessage(MESSAGE);
const BATCH_BYTES = 32 * 1024;
/** Messages before others have their turn. */
const TURN = 256;
const [kind, callers] = process.argv.slice(2);
const CALLERS = Number(callers);
const waiting: (() => void)[] = [];

function flood(stream: { write(bytes: Uint8Array): boolean; once(event: "drain", listener: () => void): unknown }, options: { readonly bytes: Uint8Array; readonly over: () => boolean }): void {
  const { bytes, over } = options;
  const next = (): void => {
    for (let sent = 0; sent < TURN && !over(); sent++) if (!stream.write(bytes)) return void stream.once("drain", next);
    if (!over()) setImmediate(next);
  };
  waiting.push(next);
  if (waiting.length === CALLERS) for (const start of waiting) setImmediate(start);
}

function floodOverHttp2(bytes: Uint8Array): void {
  const server = createServer();
  server.on("stream", (stream: ServerHttp2Stream) => {
    stream.on("error", () => undefined);
    stream.respond({ ":status": 200, "content-type": "application/grpc+proto" });
    flood(stream, { bytes, over: () => stream.destroyed });
  });
  server.listen(0, "127.0.0.1", () => console.log((server.address() as { port: number }).port));
}

function floodOverGrpc(): void {
  const server = new Server();
  const subscribeByFilter = (call: ServerWritableStream<Buffer, Uint8Array>): void => flood(call, { bytes: MESSAGE, over: () => call.cancelled || call.destroyed });
  server.addService(BROKER_METHODS, { subscribeByFilter });
  server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) => {
    if (error !== null) throw error;
    console.log(port);
  });
}

if (kind === "grpc-js") floodOverGrpc();
else floodOverHttp2(kind === "http2" ? FRAME : Buffer.concat(Array.from({ length: Math.floor(BATCH_BYTES / FRAME.length) }, () => FRAME)));
