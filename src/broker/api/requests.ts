/** The broker's subscription requests: protobuf codec. The contract is proto/broker.proto. */
import { StrataError } from "../../kit/errors.ts";
import { ProtoReader, ProtoWriter } from "../../kit/protobuf.ts";
import {
  type BrokerFilter, decodeTenantTimelineId, encodeTenantTimelineId, MESSAGE_TYPE_DISCOVERY_REQUEST,
  MESSAGE_TYPE_DISCOVERY_RESPONSE, MESSAGE_TYPE_TIMELINE_INFO, type MessageType, type TenantTimelineId,
} from "./messages.ts";

/** @param timeline null for all timelines */
export function encodeSubscribeInfoRequest(timeline: TenantTimelineId | null): Uint8Array {
  const writer = new ProtoWriter(48);
  if (timeline === null) return writer.bytes(1, new Uint8Array(0), true).finish();
  return writer.bytes(2, encodeTenantTimelineId(timeline)).finish();
}

/** Null means all timelines. @throws StrataError fix-input `bad-broker-message` without a key */
export function decodeSubscribeInfoRequest(bytes: Uint8Array): TenantTimelineId | null {
  const reader = new ProtoReader(bytes, "SubscribeSafekeeperInfoRequest");
  let key: TenantTimelineId | null | undefined;
  while (reader.next()) {
    if (reader.field === 1) {
      reader.skip();
      key = null;
    } else if (reader.field === 2) key = decodeTenantTimelineId(reader.bytes());
    else reader.skip();
  }
  if (key === undefined) throw new StrataError("fix-input", "bad-broker-message", "missing subscription key");
  return key;
}

export function encodeFilterRequest(filter: BrokerFilter): Uint8Array {
  const writer = new ProtoWriter(96);
  for (const type of filter.types) writer.bytes(1, new ProtoWriter(4).u64(1, type).finish());
  if (filter.timeline !== null) {
    writer.bytes(2, new ProtoWriter(48).bool(1, true).bytes(2, encodeTenantTimelineId(filter.timeline)).finish());
  }
  return writer.finish();
}

function isMessageType(type: number): type is MessageType {
  return type === MESSAGE_TYPE_TIMELINE_INFO || type === MESSAGE_TYPE_DISCOVERY_REQUEST || type === MESSAGE_TYPE_DISCOVERY_RESPONSE;
}

function decodeType(bytes: Uint8Array): MessageType | null {
  const reader = new ProtoReader(bytes, "TypeSubscription");
  let type = 0;
  while (reader.next()) {
    if (reader.field === 1) type = reader.u32();
    else reader.skip();
  }
  return isMessageType(type) ? type : null;
}

function decodeTimelineFilter(bytes: Uint8Array): TenantTimelineId | null {
  const reader = new ProtoReader(bytes, "FilterTenantTimelineId");
  let enabled = false;
  let timeline: TenantTimelineId | null = null;
  while (reader.next()) {
    if (reader.field === 1) enabled = reader.bool();
    else if (reader.field === 2) timeline = decodeTenantTimelineId(reader.bytes());
    else reader.skip();
  }
  if (!enabled) return null;
  if (timeline === null) throw new StrataError("fix-input", "bad-broker-message", "the filter is enabled but has no tenant_timeline_id");
  return timeline;
}

/** Types unknown to this version are ignored. @throws StrataError fix-input `bad-broker-message` when an enabled filter has no id */
export function decodeFilterRequest(bytes: Uint8Array): BrokerFilter {
  const reader = new ProtoReader(bytes, "SubscribeByFilterRequest");
  const types = new Set<MessageType>();
  let timeline: TenantTimelineId | null = null;
  while (reader.next()) {
    if (reader.field === 1) {
      const type = decodeType(reader.bytes());
      if (type !== null) types.add(type);
    } else if (reader.field === 2) timeline = decodeTimelineFilter(reader.bytes());
    else reader.skip();
  }
  return { types: [...types], timeline };
}
