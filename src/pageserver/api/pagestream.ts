/**
 * Messages of `pagestream_v2` and `pagestream_v3`, big-endian, one a CopyData message.
 *
 * Request: u8 kind · v3: u64 request id · u64 request LSN (all ones: the latest) · u64 not-modified-since LSN, then
 *
 * | kind | request | body | response kind | result |
 * | --- | --- | --- | --- | --- |
 * | 0 | exists | rel | 100 | u8 |
 * | 1 | nblocks | rel | 101 | u32 |
 * | 2 | getpage | rel · u32 block | 102 | 8192 bytes |
 * | 3 | dbsize | u32 database | 104 | i64 bytes |
 * | 4 | slru segment | u8 kind · u32 segment | 105 | u32 n · n × 8192 bytes |
 *
 * rel: u32 tablespace · u32 database · u32 relation · u8 fork. A v3 response echoes everything of the request after its
 * kind; a v2 response only has the result. An error is kind 103 · v3: the three u64 · C string.
 *
 * Source: the peer's pageserver_api models module.
 */
import { ByteReader, ByteWriter, utf8 } from "../../kit/bytes.ts";
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, LSN_MAX } from "../../kit/lsn.ts";
import { PAGE_SIZE, type RelTag, SLRU_KINDS, type SlruKind } from "../../keyspace/relation.ts";

export type PagestreamVersion = 2 | 3;

interface RequestHeader {
  readonly requestLsn: Lsn;
  readonly notModifiedSince: Lsn;
  /** v3: what a response repeats, without the kind byte. */
  readonly echo: Uint8Array;
  /** v3: what an error response repeats. */
  readonly errorEcho: Uint8Array;
}

export type PagestreamRequest =
  | (RequestHeader & { readonly kind: "exists" | "nblocks"; readonly rel: RelTag })
  | (RequestHeader & { readonly kind: "getpage"; readonly rel: RelTag; readonly block: number })
  | (RequestHeader & { readonly kind: "dbsize"; readonly dbOid: number })
  | (RequestHeader & { readonly kind: "slru-segment"; readonly slru: SlruKind; readonly segment: number });

export const RESPONSE_KINDS = { exists: 100, nblocks: 101, getpage: 102, error: 103, dbsize: 104, "slru-segment": 105 } as const;

const NOTHING = new Uint8Array(0);
/** Of the v3 header: request id and two LSNs. */
const HEADER_SIZE = 24;

/** Views into `message`. @throws StrataError fix-input `bad-pagestream-request`, `bad-lsn`, corrupt `truncated` */
export function decodeRequest(message: Uint8Array, version: PagestreamVersion): PagestreamRequest {
  const reader = new ByteReader(message, "pagestream request");
  const kind = reader.u8();
  if (version === 3) reader.skip(8);
  const echoes = version === 3 ? { echo: message.subarray(1), errorEcho: message.subarray(1, 1 + HEADER_SIZE) } : { echo: NOTHING, errorEcho: NOTHING };
  const header = { requestLsn: reader.lsnBe(), notModifiedSince: reader.lsnBe(), ...echoes };
  const request = decodeBody(reader, kind, header);
  if (reader.remaining !== 0) throw bad(`${reader.remaining} bytes too many`);
  return request;
}

function decodeBody(reader: ByteReader, kind: number, header: RequestHeader): PagestreamRequest {
  switch (kind) {
    case 0:
      return { kind: "exists", ...header, rel: readRel(reader) };
    case 1:
      return { kind: "nblocks", ...header, rel: readRel(reader) };
    case 2:
      return { kind: "getpage", ...header, rel: readRel(reader), block: reader.u32be() };
    case 3:
      return { kind: "dbsize", ...header, dbOid: reader.u32be() };
    case 4:
      return { kind: "slru-segment", ...header, slru: readSlru(reader), segment: reader.u32be() };
    default:
      throw bad(`unknown kind ${kind}`);
  }
}

function readRel(reader: ByteReader): RelTag {
  return { spcOid: reader.u32be(), dbOid: reader.u32be(), relNumber: reader.u32be(), fork: reader.u8() };
}

function readSlru(reader: ByteReader): SlruKind {
  const number = reader.u8();
  const kind = SLRU_KINDS[number];
  if (kind === undefined) throw bad(`unknown SLRU ${number}`);
  return kind;
}

function bad(what: string): StrataError {
  return new StrataError("fix-input", "bad-pagestream-request", `pagestream request: ${what}`);
}

const GETPAGE_KIND = 2;
const REL_AND_BLOCK_SIZE = 17;
const LSN_HIGH_END = 2 ** 21;
const U32_MAX = 0xffff_ffff;

/** A message in place: bytes[start, end). */
export interface MessageSpan {
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
}

/** The fields of a getpage request, for who decodes very many: one such object serves them all. */
export class GetPageFields {
  requestLsn: Lsn = 0;
  notModifiedSince: Lsn = 0;
  readonly rel = { spcOid: 0, dbOid: 0, relNumber: 0, fork: 0 };
  block = 0;

  /** False for everything but a sound getpage request: `decodeRequest` tells what it is, or what is wrong. */
  decode({ bytes, start, end }: MessageSpan, version: PagestreamVersion): boolean {
    let at = start + (version === 3 ? 9 : 1);
    if (end - at !== 16 + REL_AND_BLOCK_SIZE || bytes[start] !== GETPAGE_KIND) return false;
    this.requestLsn = lsnAt(bytes, at);
    this.notModifiedSince = lsnAt(bytes, at + 8);
    at += 16;
    const { rel } = this;
    rel.spcOid = u32At(bytes, at);
    rel.dbOid = u32At(bytes, at + 4);
    rel.relNumber = u32At(bytes, at + 8);
    rel.fork = bytes[at + 12];
    this.block = u32At(bytes, at + 13);
    return this.requestLsn >= 0 && this.notModifiedSince >= 0;
  }
}

function u32At(bytes: Uint8Array, at: number): number {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
}

/** As lsnFromHalves, but -1 for what that refuses. */
function lsnAt(bytes: Uint8Array, at: number): Lsn {
  const high = u32At(bytes, at);
  const low = u32At(bytes, at + 4);
  if (high < LSN_HIGH_END) return high * (U32_MAX + 1) + low;
  return high === U32_MAX && low === U32_MAX ? LSN_MAX : -1;
}

/** Bytes of a getpage response before the page. */
export function pageHeaderSize(version: PagestreamVersion): number {
  return version === 3 ? 1 + HEADER_SIZE + REL_AND_BLOCK_SIZE : 1;
}

/** What stands before the page in the response to a getpage request: `pageHeaderSize` bytes. */
export function putPageHeader(into: { readonly bytes: Uint8Array; readonly at: number }, request: MessageSpan, size: number): void {
  const { bytes, start } = request;
  const to = into.bytes;
  const { at } = into;
  to[at] = RESPONSE_KINDS.getpage;
  for (let i = 1; i < size; i++) to[at + i] = bytes[start + i];
}

/** The parts of a response, for one CopyData message. */
export function responseParts(request: PagestreamRequest, ...result: readonly Uint8Array[]): Uint8Array[] {
  return [Uint8Array.of(RESPONSE_KINDS[request.kind]), request.echo, ...result];
}

export function errorParts(request: PagestreamRequest, message: string): Uint8Array[] {
  return [Uint8Array.of(RESPONSE_KINDS.error), request.errorEcho, utf8(message.replaceAll("\0", "?")), Uint8Array.of(0)];
}

export function encodeResult(request: PagestreamRequest, result: boolean | number | Uint8Array): Uint8Array[] {
  if (request.kind === "getpage") return responseParts(request, result as Uint8Array);
  const writer = new ByteWriter(8);
  if (request.kind === "exists") return responseParts(request, writer.u8(result === true ? 1 : 0).finish());
  if (request.kind === "nblocks") return responseParts(request, writer.u32be(result as number).finish());
  if (request.kind === "dbsize") return responseParts(request, writer.i64be(BigInt(result as number)).finish());
  const bytes = result as Uint8Array;
  return responseParts(request, writer.u32be(bytes.length / PAGE_SIZE).finish(), bytes);
}

export interface RequestFields {
  readonly requestId?: bigint;
  readonly requestLsn: Lsn;
  readonly notModifiedSince: Lsn;
}

/** The client's side: a getpage request. */
export function encodeGetPage(fields: RequestFields, page: { readonly rel: RelTag; readonly block: number }, version: PagestreamVersion): Uint8Array {
  const writer = encodeHeader(2, fields, version);
  return writeRel(writer, page.rel).u32be(page.block).finish();
}

/** The client's side: exists and nblocks. */
export function encodeRelRequest(kind: "exists" | "nblocks", fields: RequestFields, target: { readonly rel: RelTag; readonly version: PagestreamVersion }): Uint8Array {
  return writeRel(encodeHeader(kind === "exists" ? 0 : 1, fields, target.version), target.rel).finish();
}

function encodeHeader(kind: number, fields: RequestFields, version: PagestreamVersion): ByteWriter {
  const writer = new ByteWriter(64).u8(kind);
  if (version === 3) writer.u64be(fields.requestId ?? 0n);
  return writer.lsnBe(fields.requestLsn).lsnBe(fields.notModifiedSince);
}

function writeRel(writer: ByteWriter, rel: RelTag): ByteWriter {
  return writer.u32be(rel.spcOid).u32be(rel.dbOid).u32be(rel.relNumber).u8(rel.fork);
}

/** The client's side: the result of a response. @throws StrataError unavailable `pagestream-error` with the server's words */
export function decodeResponse(message: Uint8Array, version: PagestreamVersion): { readonly kind: number; readonly body: Uint8Array } {
  const reader = new ByteReader(message, "pagestream response");
  const kind = reader.u8();
  if (kind === RESPONSE_KINDS.error) {
    if (version === 3) reader.skip(HEADER_SIZE);
    throw new StrataError("unavailable", "pagestream-error", reader.cstring());
  }
  return { kind, body: reader.rest() };
}
