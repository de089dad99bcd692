/** Fetches a base backup from a pageserver into an empty directory. */
import { once } from "node:events";
import { createGunzip } from "node:zlib";
import { StrataError } from "../../kit/errors.ts";
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { Platform } from "../../platform/platform.ts";
import type { ClientCopyStream } from "../../wire/client-copy-stream.ts";
import type { PgTls } from "../../wire/client-tls.ts";
import { PgClient } from "../../wire/client.ts";
import { BackupUnpacker, type UnpackedBackup } from "./unpack.ts";

export interface FetchOptions {
  readonly platform: Pick<Platform, "clock" | "random" | "network" | "files">;
  readonly pageserver: { readonly host: string; readonly port: number };
  readonly authToken?: string;
  /** Undefined for plain text. */
  readonly tls?: PgTls | undefined;
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  /** 0: wherever the timeline ends. */
  readonly lsn: Lsn;
  readonly directory: string;
  /** For a standby: without replication slots. */
  readonly replica?: boolean;
  readonly signal?: AbortSignal;
}

export interface FetchedBackup extends UnpackedBackup {
  /** What came over the network, compressed unless it came over loopback. */
  readonly fetchedBytes: number;
}

/** @throws StrataError `server-error` with the pageserver's words, unavailable, corrupt `bad-base-backup`, `bad-tar` */
export async function fetchBaseBackup(options: FetchOptions): Promise<FetchedBackup> {
  const { platform, pageserver, tenantId, timelineId, lsn, directory } = options;
  const client = await PgClient.connect(platform.network, {
    address: pageserver,
    parameters: { user: "strata_compute", database: "strata", application_name: "strata_compute" },
    clock: platform.clock,
    random: platform.random,
    tls: options.tls,
    ...(options.authToken === undefined ? {} : { password: options.authToken }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  const abort = (): void => client.destroy();
  options.signal?.addEventListener("abort", abort, { once: true });
  try {
    const at = lsn === 0 ? "" : ` ${lsnToString(lsn)}`;
    // Over loopback compression would only cost both sides time.
    const gzip = !isLoopback(pageserver.host);
    const stream = await client.copyOut(`fullbasebackup ${tenantId} ${timelineId}${at}${gzip ? " --gzip" : ""}${options.replica === true ? " --replica" : ""}`);
    const unpacker = new BackupUnpacker(platform.files, directory);
    const sink = (chunk: Uint8Array): Promise<void> => unpacker.push(chunk);
    const fetchedBytes = gzip ? await unzip(stream, sink) : await copy(stream, sink);
    return { ...(await unpacker.finish()), fetchedBytes };
  } finally {
    options.signal?.removeEventListener("abort", abort);
    client.destroy();
  }
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

async function copy(stream: ClientCopyStream, sink: (chunk: Uint8Array) => Promise<void>): Promise<number> {
  let fetchedBytes = 0;
  for (let data = await stream.read(); data !== null; data = await stream.read()) {
    fetchedBytes += data.length;
    await sink(data);
  }
  return fetchedBytes;
}

/** Feeds the decompressed stream to `sink`, reading no faster than it takes. Returns the compressed size. */
async function unzip(stream: ClientCopyStream, sink: (chunk: Uint8Array) => Promise<void>): Promise<number> {
  const gunzip = createGunzip();
  const over = new AbortController();
  let fetchedBytes = 0;
  const feed = async (): Promise<void> => {
    for (let data = await stream.read(); data !== null; data = await stream.read()) {
      fetchedBytes += data.length;
      if (!gunzip.write(data)) await once(gunzip, "drain", { signal: over.signal });
    }
    gunzip.end();
  };
  const feeding = feed().catch((error: Error) => {
    gunzip.destroy(error);
    throw error;
  });
  feeding.catch(() => {});
  try {
    for await (const chunk of gunzip) await sink(chunk as Uint8Array);
  } catch (error) {
    if (error instanceof StrataError) throw error;
    throw new StrataError("corrupt", "bad-base-backup", "the base backup cannot be decompressed", { cause: error });
  } finally {
    over.abort();
    gunzip.destroy();
  }
  await feeding;
  return fetchedBytes;
}
