/**
 * The broker's messages: types and protobuf codec. The contract is proto/broker.proto; field numbers stand in the
 * codec below. Decoders give typed errors (`bad-protobuf`, `bad-broker-message`), ignore unknown fields, and never
 * trust a length.
 */
import { StrataError } from "../../kit/errors.ts";
import { idFromBytes, idToBytes, type NodeId, type TenantId, type TimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { ProtoReader, ProtoWriter } from "../../kit/protobuf.ts";

export interface TenantTimelineId {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
}

export interface SafekeeperTimelineInfo extends TenantTimelineId {
  readonly safekeeperId: NodeId;
  readonly term: number;
  readonly lastLogTerm: number;
  readonly flushLsn: Lsn;
  readonly commitLsn: Lsn;
  readonly backupLsn: Lsn;
  readonly remoteConsistentLsn: Lsn;
  readonly peerHorizonLsn: Lsn;
  readonly localStartLsn: Lsn;
  readonly standbyHorizon: Lsn;
  /** host:port that serves WAL over libpq. */
  readonly safekeeperConnstr: string;
  readonly httpConnstr: string;
  readonly httpsConnstr?: string | undefined;
  readonly availabilityZone?: string | undefined;
}

export interface SafekeeperDiscoveryResponse extends TenantTimelineId {
  readonly safekeeperId: NodeId;
  readonly commitLsn: Lsn;
  readonly safekeeperConnstr: string;
  readonly availabilityZone?: string | undefined;
  readonly standbyHorizon: Lsn;
}

export const MESSAGE_TYPE_TIMELINE_INFO = 2;
export const MESSAGE_TYPE_DISCOVERY_REQUEST = 3;
export const MESSAGE_TYPE_DISCOVERY_RESPONSE = 4;
export type MessageType = typeof MESSAGE_TYPE_TIMELINE_INFO | typeof MESSAGE_TYPE_DISCOVERY_REQUEST | typeof MESSAGE_TYPE_DISCOVERY_RESPONSE;

export type BrokerMessage =
  | { readonly type: "timeline-info"; readonly info: SafekeeperTimelineInfo }
  | { readonly type: "discovery-request"; readonly request: TenantTimelineId }
  | { readonly type: "discovery-response"; readonly response: SafekeeperDiscoveryResponse };

/** What a subscriber wants: message types, of one timeline or (null) of all. */
export interface BrokerFilter {
  readonly types: readonly MessageType[];
  readonly timeline: TenantTimelineId | null;
}

function badMessage(reason: string): StrataError {
  return new StrataError("fix-input", "bad-broker-message", reason);
}

export function encodeTenantTimelineId(id: TenantTimelineId): Uint8Array {
  return new ProtoWriter(40).bytes(1, idToBytes(id.tenantId)).bytes(2, idToBytes(id.timelineId)).finish();
}

/** @throws StrataError fix-input `bad-broker-message` when an id is not 16 bytes */
export function decodeTenantTimelineId(bytes: Uint8Array): TenantTimelineId {
  const reader = new ProtoReader(bytes, "TenantTimelineId");
  let tenant: Uint8Array | null = null;
  let timeline: Uint8Array | null = null;
  while (reader.next()) {
    if (reader.field === 1) tenant = reader.bytes();
    else if (reader.field === 2) timeline = reader.bytes();
    else reader.skip();
  }
  if (tenant?.length !== 16 || timeline?.length !== 16) throw badMessage("tenant_id and timeline_id must be 16 bytes each");
  return { tenantId: idFromBytes(tenant), timelineId: idFromBytes(timeline) };
}

export function encodeTimelineInfo(info: SafekeeperTimelineInfo): Uint8Array {
  const writer = new ProtoWriter(192)
    .u64(1, info.safekeeperId)
    .bytes(2, encodeTenantTimelineId(info))
    .u64(3, info.lastLogTerm)
    .u64(4, info.flushLsn)
    .u64(5, info.commitLsn)
    .u64(6, info.backupLsn)
    .u64(7, info.remoteConsistentLsn)
    .u64(8, info.peerHorizonLsn)
    .u64(9, info.localStartLsn)
    .string(10, info.safekeeperConnstr);
  if (info.availabilityZone !== undefined) writer.string(11, info.availabilityZone, true);
  writer.u64(12, info.term).string(13, info.httpConnstr).u64(14, info.standbyHorizon);
  if (info.httpsConnstr !== undefined) writer.string(15, info.httpsConnstr, true);
  return writer.finish();
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export function decodeTimelineInfo(bytes: Uint8Array): SafekeeperTimelineInfo {
  const reader = new ProtoReader(bytes, "SafekeeperTimelineInfo");
  let id: TenantTimelineId | null = null;
  const info: Mutable<Omit<SafekeeperTimelineInfo, "tenantId" | "timelineId">> = {
    safekeeperId: 0, term: 0, lastLogTerm: 0, flushLsn: 0, commitLsn: 0, backupLsn: 0, remoteConsistentLsn: 0,
    peerHorizonLsn: 0, localStartLsn: 0, standbyHorizon: 0, safekeeperConnstr: "", httpConnstr: "",
  };
  while (reader.next()) {
    switch (reader.field) {
      case 1: info.safekeeperId = reader.u64(); break;
      case 2: id = decodeTenantTimelineId(reader.bytes()); break;
      case 3: info.lastLogTerm = reader.u64(); break;
      case 4: info.flushLsn = reader.u64(); break;
      case 5: info.commitLsn = reader.u64(); break;
      case 6: info.backupLsn = reader.u64(); break;
      case 7: info.remoteConsistentLsn = reader.u64(); break;
      case 8: info.peerHorizonLsn = reader.u64(); break;
      case 9: info.localStartLsn = reader.u64(); break;
      case 10: info.safekeeperConnstr = reader.string(); break;
      case 11: info.availabilityZone = reader.string(); break;
      case 12: info.term = reader.u64(); break;
      case 13: info.httpConnstr = reader.string(); break;
      case 14: info.standbyHorizon = reader.u64(); break;
      case 15: info.httpsConnstr = reader.string(); break;
      default: reader.skip();
    }
  }
  if (id === null) throw badMessage("SafekeeperTimelineInfo has no tenant_timeline_id");
  return { ...id, ...info };
}

function encodeDiscoveryResponse(response: SafekeeperDiscoveryResponse): Uint8Array {
  const writer = new ProtoWriter(128)
    .u64(1, response.safekeeperId)
    .bytes(2, encodeTenantTimelineId(response))
    .u64(3, response.commitLsn)
    .string(4, response.safekeeperConnstr);
  if (response.availabilityZone !== undefined) writer.string(5, response.availabilityZone, true);
  return writer.u64(6, response.standbyHorizon).finish();
}

function decodeDiscoveryResponse(bytes: Uint8Array): SafekeeperDiscoveryResponse {
  const reader = new ProtoReader(bytes, "SafekeeperDiscoveryResponse");
  let id: TenantTimelineId | null = null;
  const response: Mutable<Omit<SafekeeperDiscoveryResponse, "tenantId" | "timelineId">> = { safekeeperId: 0, commitLsn: 0, safekeeperConnstr: "", standbyHorizon: 0 };
  while (reader.next()) {
    switch (reader.field) {
      case 1: response.safekeeperId = reader.u64(); break;
      case 2: id = decodeTenantTimelineId(reader.bytes()); break;
      case 3: response.commitLsn = reader.u64(); break;
      case 4: response.safekeeperConnstr = reader.string(); break;
      case 5: response.availabilityZone = reader.string(); break;
      case 6: response.standbyHorizon = reader.u64(); break;
      default: reader.skip();
    }
  }
  if (id === null) throw badMessage("SafekeeperDiscoveryResponse has no tenant_timeline_id");
  return { ...id, ...response };
}

/** Wraps the bytes of an inner message as a TypedMessage, without decoding them. */
export function wrapTyped(type: MessageType, inner: Uint8Array): Uint8Array {
  return new ProtoWriter(inner.length + 16).u64(1, type).bytes(type, inner, true).finish();
}

/** The type and inner bytes of a TypedMessage. @throws StrataError fix-input when the type is unknown or its part is missing */
export function unwrapTyped(bytes: Uint8Array): { type: MessageType; inner: Uint8Array } {
  const reader = new ProtoReader(bytes, "TypedMessage");
  let type = 0;
  const parts: (Uint8Array | undefined)[] = [];
  while (reader.next()) {
    if (reader.field === 1) type = reader.u32();
    else if (reader.field >= 2 && reader.field <= 4) parts[reader.field] = reader.bytes();
    else reader.skip();
  }
  // The type's number is also the field number of the part it announces.
  if (type !== MESSAGE_TYPE_TIMELINE_INFO && type !== MESSAGE_TYPE_DISCOVERY_REQUEST && type !== MESSAGE_TYPE_DISCOVERY_RESPONSE) {
    throw badMessage(`message type ${type} is unknown`);
  }
  const inner = parts[type];
  if (inner === undefined) throw badMessage(`the part that message type ${type} announces is missing`);
  return { type, inner };
}

/** The tenant_timeline_id of an inner message, without decoding the rest; null when absent. */
export function peekTenantTimelineId(type: MessageType, inner: Uint8Array): TenantTimelineId | null {
  const idField = type === MESSAGE_TYPE_DISCOVERY_REQUEST ? 1 : 2;
  const reader = new ProtoReader(inner, "broker message");
  while (reader.next()) {
    if (reader.field === idField) return decodeTenantTimelineId(reader.bytes());
    reader.skip();
  }
  return null;
}

export function encodeMessage(message: BrokerMessage): Uint8Array {
  switch (message.type) {
    case "timeline-info":
      return wrapTyped(MESSAGE_TYPE_TIMELINE_INFO, encodeTimelineInfo(message.info));
    case "discovery-request":
      return wrapTyped(MESSAGE_TYPE_DISCOVERY_REQUEST, new ProtoWriter(48).bytes(1, encodeTenantTimelineId(message.request)).finish());
    case "discovery-response":
      return wrapTyped(MESSAGE_TYPE_DISCOVERY_RESPONSE, encodeDiscoveryResponse(message.response));
  }
}

export function decodeMessage(bytes: Uint8Array): BrokerMessage {
  const { type, inner } = unwrapTyped(bytes);
  if (type === MESSAGE_TYPE_TIMELINE_INFO) return { type: "timeline-info", info: decodeTimelineInfo(inner) };
  if (type === MESSAGE_TYPE_DISCOVERY_RESPONSE) return { type: "discovery-response", response: decodeDiscoveryResponse(inner) };
  const request = peekTenantTimelineId(type, inner);
  if (request === null) throw badMessage("SafekeeperDiscoveryRequest has no tenant_timeline_id");
  return { type: "discovery-request", request };
}
