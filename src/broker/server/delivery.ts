/**
 * Sends a subscriber many messages in one write. A gRPC stream is messages one behind the other, each with a header of its own; how
 * they are cut into HTTP/2 frames is free.
 *
 * The library makes a frame for every message and every subscriber and writes each alone, through two streams one upon the other:
 * most of the broker's time. Here a message gets its frame once, for all who hear it, and what waits for a subscriber goes out
 * together. The library has no way to say that, so the HTTP/2 stream below the call is taken from where it keeps it; where it is
 * not found there, messages go through the library one by one.
 */
import { Metadata, type ServerWritableStream } from "@grpc/grpc-js";
import { concatBytes } from "../../kit/bytes.ts";
import { messageOf } from "../registry/frame.ts";

/** What is used of an HTTP/2 stream. */
interface RawStream {
  write(bytes: Uint8Array): boolean;
  on(event: "drain", listener: () => void): unknown;
  readonly destroyed: boolean;
}

export type SubscribeCall = ServerWritableStream<Buffer, Uint8Array>;

export interface Delivery {
  /** Sends the frames that `next` gives, until it gives null or there is no room: then `onRoom` is called when there is some again. */
  send(next: () => Uint8Array | null): Sent;
}

export interface Sent {
  readonly count: number;
  readonly room: boolean;
}

/** A write's worth; HTTP/2 cuts it into frames of 16 KiB. */
const BATCH_BYTES = 32 * 1024;

/** @param onRoom called when a call that had no room has some again */
export function openDelivery(call: SubscribeCall, onRoom: () => void): Delivery {
  const raw = rawStreamOf(call);
  if (raw === null) {
    call.on("drain", onRoom);
    return { send: (next) => oneByOne(call, next) };
  }
  // The headers, which the library would send before the first message.
  call.sendMetadata(new Metadata());
  raw.on("drain", onRoom);
  return { send: (next) => together(raw, next) };
}

function oneByOne(call: SubscribeCall, next: () => Uint8Array | null): Sent {
  let count = 0;
  for (let frame = next(); frame !== null; frame = next()) {
    count++;
    if (!call.write(messageOf(frame))) return { count, room: false };
  }
  return { count, room: true };
}

function together(raw: RawStream, next: () => Uint8Array | null): Sent {
  let count = 0;
  for (;;) {
    const frames: Uint8Array[] = [];
    for (let bytes = 0; bytes < BATCH_BYTES; ) {
      const frame = next();
      if (frame === null) break;
      frames.push(frame);
      bytes += frame.length;
    }
    if (frames.length === 0 || raw.destroyed) return { count, room: true };
    count += frames.length;
    if (!raw.write(frames.length === 1 ? frames[0] : concatBytes(frames))) return { count, room: false };
  }
}

/** Null when the library is not built as it was. Exported for the test that notices. */
export function rawStreamOf(call: object): RawStream | null {
  const stream = property(property(call, "call"), "stream");
  const fits = typeof property(stream, "write") === "function" && typeof property(stream, "on") === "function" && typeof property(stream, "destroyed") === "boolean";
  return fits ? (stream as RawStream) : null;
}

function property(of: unknown, name: string): unknown {
  return typeof of === "object" && of !== null ? (of as Readonly<Record<string, unknown>>)[name] : undefined;
}
