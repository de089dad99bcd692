/**
 * Copies a timeline that other safekeepers have: the most advanced of the hosts named sends a snapshot, which becomes our
 * timeline, whole or not at all. The log it carries is checked as at any start.
 * Source: the peer safekeeper/src/pull_timeline.rs.
 */
import { extract as tarExtract } from "tar-stream";
import { describeError, StrataError } from "../../kit/errors.ts";
import type { NodeId } from "../../kit/ids.ts";
import { parseLsn } from "../../kit/lsn.ts";
import type { TenantTimelineId } from "../../broker/api/messages.ts";
import { HttpClient } from "../../http/client.ts";
import type { Platform } from "../../platform/platform.ts";
import { SafekeeperClient } from "../api/client.ts";
import type { TimelineStatusReply } from "../api/http.ts";
import { decodeControlFile } from "../control-file/codec.ts";
import { CONTROL_FILE_NAME, writeControlFile } from "../control-file/control-file.ts";
import type { TimelinePersistentState } from "../control-file/state.ts";
import { parseSegmentName } from "../wal-store/segments.ts";
import type { Timelines } from "./timelines.ts";

const CONTROL_FILE_MAX_BYTES = 16 * 1024 * 1024;
const STATUS_TIMEOUT_MS = 10_000;

export interface PullOptions {
  readonly timelines: Timelines;
  readonly platform: Platform;
  readonly nodeId: number;
  readonly sync: boolean;
  readonly token: string | undefined;
  /** For hosts of https; the system's authorities are trusted without it. */
  readonly caPem?: string | undefined;
  /** Base URLs. */
  readonly hosts: readonly string[];
  readonly signal: AbortSignal;
  /** A configuration of a later generation comes with the copy: whoever decided on it has seen to what this node may vote for. */
  readonly newMember: boolean;
}

/** Returns the host it came from; null when the timeline was here already. @throws StrataError unavailable `no-donor`, … */
export async function pullTimeline(id: TenantTimelineId, options: PullOptions): Promise<string | null> {
  if (options.timelines.find(id) !== null) return null;
  const donors = await Promise.all(options.hosts.map((host) => askStatus(id, host, options)));
  const position = (status: TimelineStatusReply): [number, number, number] => [status.acceptor_state.epoch, parseLsn(status.flush_lsn), parseLsn(status.commit_lsn)];
  const best = donors.filter((donor) => donor.status !== null).sort((a, b) => (a.status === null || b.status === null ? 0 : compare(position(b.status), position(a.status)))).at(0);
  if (best === undefined) throw new StrataError("unavailable", "no-donor", `no host has the timeline: ${donors.map((donor) => `${donor.host}: ${donor.error}`).join("; ")}`);
  await options.timelines.addFrom(id, (directory) => fetchSnapshot(id, best.host, { ...options, directory }));
  return best.host;
}

function compare(a: readonly number[], b: readonly number[]): number {
  return a.map((value, index) => value - b[index]).find((difference) => difference !== 0) ?? 0;
}

async function askStatus(id: TenantTimelineId, host: string, options: PullOptions): Promise<{ readonly host: string; readonly status: TimelineStatusReply | null; readonly error: string }> {
  try {
    return { host, status: await new SafekeeperClient(client(host, options)).timelineStatus(id, { signal: options.signal }), error: "" };
  } catch (error) {
    return { host, status: null, error: describeError(error) };
  }
}

function client(host: string, options: PullOptions): HttpClient {
  return new HttpClient({ baseUrl: host.replace(/\/+$/, ""), caPem: options.caPem, clock: options.platform.clock, timeoutMs: STATUS_TIMEOUT_MS, ...(options.token === undefined ? {} : { token: options.token }) });
}

async function fetchSnapshot(id: TenantTimelineId, host: string, options: PullOptions & { readonly directory: string }): Promise<void> {
  const reply = await client(host, options).raw({ method: "GET", path: `/v1/tenant/${id.tenantId}/timeline/${id.timelineId}/snapshot/${options.nodeId}`, signal: options.signal });
  if (!reply.ok || reply.body === null) throw new StrataError("unavailable", "snapshot-failed", `${host} answered ${reply.status} to a snapshot request`);
  const archive = tarExtract();
  const feeding = feed(archive, reply.body);
  let segmentSizeBytes = 0;
  for await (const entry of archive) {
    const { name } = entry.header;
    const size = entry.header.size ?? 0;
    if (name === CONTROL_FILE_NAME) segmentSizeBytes = await takeControlFile(id, await collect(entry as AsyncIterable<Uint8Array>, CONTROL_FILE_MAX_BYTES), options);
    else if (segmentSizeBytes === 0 || parseSegmentName(name, segmentSizeBytes) === null || size > segmentSizeBytes) {
      throw new StrataError("corrupt", "bad-snapshot", `snapshot of ${host} holds "${name}" of ${size} bytes`);
    } else await takeSegment(entry as AsyncIterable<Uint8Array>, `${options.directory}/${name}`, options);
  }
  await feeding;
  if (segmentSizeBytes === 0) throw new StrataError("corrupt", "bad-snapshot", `snapshot of ${host} holds no control file`);
}

async function feed(archive: ReturnType<typeof tarExtract>, body: ReadableStream<Uint8Array>): Promise<void> {
  try {
    for await (const chunk of body) {
      if (archive.write(chunk) === false) await new Promise<void>((resolve) => archive.once("drain", () => resolve()));
    }
    archive.end(undefined);
  } catch (error) {
    archive.destroy(error as Error);
  }
}

async function collect(parts: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Uint8Array> {
  const collected: Uint8Array[] = [];
  let length = 0;
  for await (const part of parts) {
    length += part.length;
    if (length > maxBytes) throw new StrataError("corrupt", "bad-snapshot", `the snapshot's control file is larger than ${maxBytes} bytes`);
    collected.push(part);
  }
  return Buffer.concat(collected);
}

/**
 * A copy of one peer's log knows nothing of what this node itself may once have voted and acknowledged. The donor knows whether it
 * may have: one that is among the members already has lost what it had.
 */
export function pulledState(found: TimelinePersistentState, node: { readonly nodeId: NodeId; readonly newMember: boolean }): TimelinePersistentState {
  const wasMember = found.configuration.members.some(({ nodeId }) => nodeId === node.nodeId);
  return node.newMember && !wasMember ? found : { ...found, recovering: true };
}

/** Returns the segment size. */
async function takeControlFile(id: TenantTimelineId, bytes: Uint8Array, options: PullOptions & { readonly directory: string }): Promise<number> {
  const found = decodeControlFile(bytes);
  const state = pulledState(found, options);
  if (state.tenantId !== id.tenantId || state.timelineId !== id.timelineId) throw new StrataError("corrupt", "bad-snapshot", `the snapshot is of timeline ${state.tenantId}/${state.timelineId}`);
  await writeControlFile(options.platform.files, options.directory, { state, sync: options.sync });
  return state.walSegmentSizeBytes;
}

async function takeSegment(parts: AsyncIterable<Uint8Array>, path: string, options: PullOptions): Promise<void> {
  const file = await options.platform.files.open(path, "create-new");
  try {
    let at = 0;
    for await (const part of parts) {
      await file.write(part, at);
      at += part.length;
    }
    if (options.sync) await file.sync();
  } finally {
    await file.close();
  }
}
