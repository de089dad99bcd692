/**
 * A message as it stands in a gRPC stream:
 *
 * | offset | field |
 * | --- | --- |
 * | 0 | u8 0: not compressed |
 * | 1 | u32 big-endian, length of the message |
 * | 5 | the message |
 *
 * Source: gRPC over HTTP/2 (grpc/grpc doc/PROTOCOL-HTTP2.md, Length-Prefixed-Message).
 */
import { dataViewOf } from "../../kit/bytes.ts";

const HEADER_BYTES = 5;

export function frameMessage(message: Uint8Array): Uint8Array {
  const frame = new Uint8Array(HEADER_BYTES + message.length);
  dataViewOf(frame).setUint32(1, message.length);
  frame.set(message, HEADER_BYTES);
  return frame;
}

/** A view. */
export function messageOf(frame: Uint8Array): Uint8Array {
  return frame.subarray(HEADER_BYTES);
}
