/**
 * Membership configuration of a timeline: which safekeepers make its quorum, under a generation that only grows.
 *
 * | field (protocol v3, big-endian) | type |
 * | --- | --- |
 * | generation | u32; 0 before the timeline was given one |
 * | member count, then the members | u32, then each u64 node id, C string host, u16 port |
 * | new-member count, then the new members | the same; count 0 = not a joint configuration |
 *
 * Source: the peer (neondatabase/neon) libs/safekeeper_api/src/membership.rs, pgxn/neon/walproposer.c
 * (MembershipConfigurationSerialize), docs/rfcs/035-safekeeper-dynamic-membership-change.md.
 */
import type { ByteReader, ByteWriter } from "../../kit/bytes.ts";
import { StrataError } from "../../kit/errors.ts";
import type { NodeId } from "../../kit/ids.ts";
import { readU64be } from "./u64.ts";

export interface Member {
  readonly nodeId: NodeId;
  readonly host: string;
  /** The port computes connect to. */
  readonly pgPort: number;
}

export interface Configuration {
  readonly generation: number;
  readonly members: readonly Member[];
  /** Present only in a joint configuration: then both sets must agree. */
  readonly newMembers: readonly Member[] | null;
}

/** Generation of a timeline that was created without a configuration. */
export const INVALID_GENERATION = 0;
export const INITIAL_GENERATION = 1;
export const EMPTY_CONFIGURATION: Configuration = { generation: INVALID_GENERATION, members: [], newMembers: null };

/** Same bound as the proposer's MAX_SAFEKEEPERS. */
const MAX_MEMBERS = 32;

export function isMember(configuration: Configuration, nodeId: NodeId): boolean {
  const has = (set: readonly Member[]): boolean => set.some((member) => member.nodeId === nodeId);
  return has(configuration.members) || (configuration.newMembers !== null && has(configuration.newMembers));
}

export function configurationToString(configuration: Configuration): string {
  const set = (members: readonly Member[]): string => `(${members.map((m) => `${m.nodeId}=${m.host}:${m.pgPort}`).join(", ")})`;
  const joint = configuration.newMembers === null ? "" : `, new members ${set(configuration.newMembers)}`;
  return `generation ${configuration.generation}, members ${set(configuration.members)}${joint}`;
}

/** @throws StrataError fix-input `bad-configuration`: empty where members are needed, too many, or an id twice */
export function checkConfiguration(configuration: Configuration): Configuration {
  const { generation, members, newMembers } = configuration;
  if (generation !== INVALID_GENERATION && members.length === 0) {
    throw new StrataError("fix-input", "bad-configuration", `configuration of generation ${generation} has no members`);
  }
  checkMemberSet(members);
  if (newMembers !== null) checkMemberSet(newMembers);
  return configuration;
}

function checkMemberSet(members: readonly Member[]): void {
  if (members.length > MAX_MEMBERS) throw new StrataError("fix-input", "bad-configuration", `${members.length} members, at most ${MAX_MEMBERS}`);
  if (new Set(members.map((member) => member.nodeId)).size !== members.length) {
    throw new StrataError("fix-input", "bad-configuration", "a safekeeper id stands twice in the member set");
  }
}

/** Protocol v3 form. @throws StrataError corrupt `truncated`, fix-input `bad-configuration` */
export function decodeConfiguration(reader: ByteReader): Configuration {
  const generation = reader.u32be();
  const members = decodeMembers(reader);
  const newMembers = decodeMembers(reader);
  return checkConfiguration({ generation, members, newMembers: newMembers.length === 0 ? null : newMembers });
}

function decodeMembers(reader: ByteReader): Member[] {
  const count = reader.u32be();
  if (count > MAX_MEMBERS) throw new StrataError("fix-input", "bad-configuration", `${count} members, at most ${MAX_MEMBERS}`);
  const members: Member[] = [];
  for (let i = 0; i < count; i++) members.push({ nodeId: readU64be(reader, "node id"), host: reader.cstring(), pgPort: reader.u16be() });
  return members;
}

export function encodeConfiguration(writer: ByteWriter, configuration: Configuration): void {
  writer.u32be(configuration.generation);
  encodeMembers(writer, configuration.members);
  encodeMembers(writer, configuration.newMembers ?? []);
}

function encodeMembers(writer: ByteWriter, members: readonly Member[]): void {
  writer.u32be(members.length);
  for (const member of members) writer.u64be(BigInt(member.nodeId)).cstring(member.host).u16be(member.pgPort);
}
