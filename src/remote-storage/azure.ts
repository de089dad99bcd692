/**
 * Azure Blob storage: block blobs of one container. Files above 16 MiB go up as blocks; the blob appears with the block
 * list, as a whole. Deletions go one by one (a batch of the service is no transaction either), some at a time.
 *
 * Source: Azure Blob service REST documentation (Put Blob, Put Block, Put Block List, Get Blob, List Blobs, Delete Blob,
 * Copy Blob), service version 2021-08-06.
 */
import { createHash } from "node:crypto";
import { utf8 } from "../kit/bytes.ts";
import { invariant, StrataError } from "../kit/errors.ts";
import type { Platform } from "../platform/platform.ts";
import { azureAuthorization } from "./azure-signature.ts";
import type { AzureAuthorization } from "./credentials/azure.ts";
import type { HttpFetch } from "./http-request.ts";
import { DEFAULT_TIMEOUT_MS, type ObjectRequest, ObjectRequests, type UploadParts, withUploadParts } from "./object-requests.ts";
import { type ByteRange, checkObjectKey, type Download, type ListOptions, type ListPage, LIST_PAGE_MAX, objectNotFound, type OperationOptions, type RemoteStorage, storageUnavailable, type UploadSource } from "./remote-storage.ts";
import { timeTravelUnsupported } from "./time-travel.ts";
import { xmlBlocks, xmlText } from "./xml.ts";

export interface AzureOptions {
  /** Scheme, host, and the account where it is part of the path: `https://account.blob.core.windows.net`. */
  readonly endpoint: string;
  readonly account: string;
  readonly container: string;
  /** Prepended to all keys; ends in "/" or is empty. */
  readonly prefix?: string;
  /** Asked for each request, so that it may be rotated. */
  readonly authorization: () => Promise<AzureAuthorization>;
  readonly platform: Pick<Platform, "clock" | "files">;
  readonly fetch: HttpFetch;
  /** Requests at once; the peer's pool has 8. */
  readonly maxConcurrent?: number;
  readonly timeoutMs?: number;
}

const SERVICE_VERSION = "2021-08-06";
const BLOCK_BYTES = 8 * 1024 * 1024;
const SINGLE_MAX_BYTES = 16 * 1024 * 1024;
const MAX_KEYS_PER_DELETE = 256;
const DEFAULT_CONCURRENT = 8;
/** Of a copy within the account, which is mostly done at once. */
const COPY_POLL_MS = 200;
const COPY_POLLS_MAX = 300;

export class AzureStorage implements RemoteStorage {
  readonly maxKeysPerDelete = MAX_KEYS_PER_DELETE;
  readonly #options: AzureOptions;
  readonly #prefix: string;
  readonly #requests: ObjectRequests;

  constructor(options: AzureOptions) {
    this.#options = options;
    this.#prefix = options.prefix ?? "";
    invariant(this.#prefix === "" || this.#prefix.endsWith("/"), "an Azure prefix ends in a slash");
    const { platform, maxConcurrent = DEFAULT_CONCURRENT, timeoutMs = DEFAULT_TIMEOUT_MS } = options;
    this.#requests = new ObjectRequests({ clock: platform.clock, maxConcurrent, timeoutMs, send: (request, signal) => this.#send(request, signal) });
  }

  // ---- Requests

  async #send(request: ObjectRequest, signal: AbortSignal): Promise<Response> {
    const { fetch, account, authorization, platform } = this.#options;
    const right = await authorization();
    const url = new URL(this.#url(request));
    const headers = new Headers({ ...request.headers, "x-ms-version": SERVICE_VERSION, "x-ms-date": new Date(platform.clock.wallMs()).toUTCString() });
    // Else the runtime would add one of its own, unsigned.
    if (request.body !== undefined) headers.set("content-type", "application/octet-stream");
    if (right.kind === "key") headers.set("authorization", azureAuthorization(account, right.accountKey, { method: request.method, url, headers, contentLength: request.body?.length ?? 0 }));
    else if (right.kind === "bearer") headers.set("authorization", `Bearer ${right.token}`);
    else url.search += `${url.search === "" ? "?" : "&"}${right.query}`;
    return await fetch(url.toString(), { method: request.method, headers, body: request.body, signal, redirect: "manual" });
  }

  #url({ key, query = {} }: ObjectRequest): string {
    const { endpoint, container } = this.#options;
    const path = key === null ? "" : `/${this.#encoded(key)}`;
    const search = new URLSearchParams(query).toString().replaceAll("+", "%20");
    return `${endpoint}/${container}${path}${search === "" ? "" : `?${search}`}`;
  }

  #encoded(key: string): string {
    return (this.#prefix + key).split("/").map(encodeURIComponent).join("/");
  }

  // ---- Uploads

  async upload(key: string, source: UploadSource, options: OperationOptions = {}): Promise<void> {
    checkObjectKey(key);
    const what = `upload of ${key}`;
    const { signal } = options;
    await withUploadParts(this.#options.platform.files, source, async (parts) => {
      if (parts.sizeBytes > SINGLE_MAX_BYTES) return await this.#uploadBlocks(parts, { key, what, signal });
      const body = await parts.part(0, parts.sizeBytes);
      await this.#requests.run({ method: "PUT", key, headers: { "x-ms-blob-type": "BlockBlob", "content-md5": md5(body) }, body, what, signal });
    });
  }

  /** Blocks of an upload that fails are dropped by the service after a week. */
  async #uploadBlocks({ sizeBytes, part }: UploadParts, upload: { readonly key: string; readonly what: string; readonly signal?: AbortSignal }): Promise<void> {
    const { key, what, signal } = upload;
    const ids: string[] = [];
    for (let start = 0; start < sizeBytes; start += BLOCK_BYTES) {
      const body = await part(start, Math.min(start + BLOCK_BYTES, sizeBytes));
      const blockid = Buffer.from(String(ids.length).padStart(8, "0")).toString("base64");
      await this.#requests.run({ method: "PUT", key, query: { comp: "block", blockid }, headers: { "content-md5": md5(body) }, body, what, signal });
      ids.push(blockid);
    }
    const body = utf8(`<?xml version="1.0" encoding="utf-8"?><BlockList>${ids.map((id) => `<Uncommitted>${id}</Uncommitted>`).join("")}</BlockList>`);
    await this.#requests.run({ method: "PUT", key, query: { comp: "blocklist" }, body, what, signal });
  }

  // ---- Downloads

  download(key: string, options: OperationOptions & { readonly range?: ByteRange } = {}): Promise<Download> {
    return this.#requests.download(key, { ...options, rangeHeader: "x-ms-range" });
  }

  // ---- Listing, deletion, copy

  async list(options: ListOptions): Promise<ListPage> {
    const query: Record<string, string> = { restype: "container", comp: "list", prefix: this.#prefix + options.prefix, maxresults: String(Math.min(options.maxKeys ?? LIST_PAGE_MAX, LIST_PAGE_MAX)) };
    if (options.delimiter !== undefined) query.delimiter = options.delimiter;
    if (options.continuation !== undefined) query.marker = options.continuation;
    const { text } = await this.#requests.run({ method: "GET", key: null, query, what: `listing of "${options.prefix}"`, signal: options.signal });
    const strip = (name: string | null) => (name ?? "").slice(this.#prefix.length);
    return {
      objects: xmlBlocks(text, "Blob").map((blob) => ({ key: strip(xmlText(blob, "Name")), sizeBytes: Number(xmlText(blob, "Content-Length")), modifiedMs: Date.parse(xmlText(blob, "Last-Modified") ?? "") })),
      prefixes: xmlBlocks(text, "BlobPrefix").map((block) => strip(xmlText(block, "Name"))),
      continuation: xmlText(text, "NextMarker") || null,
    };
  }

  async delete(keys: readonly string[], options: OperationOptions = {}): Promise<void> {
    for (const key of keys) checkObjectKey(key);
    const results = await Promise.allSettled(keys.map((key) => this.#deleteOne(key, options)));
    const failed = results.find((result) => result.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  async #deleteOne(key: string, options: OperationOptions): Promise<void> {
    try {
      await this.#requests.run({ method: "DELETE", key, what: `deletion of ${key}`, signal: options.signal });
    } catch (error) {
      if (!(error instanceof StrataError && error.code === "object-not-found")) throw error;
    }
  }

  async copy(from: string, to: string, options: OperationOptions = {}): Promise<void> {
    checkObjectKey(from);
    checkObjectKey(to);
    const { endpoint, container, platform, authorization } = this.#options;
    const right = await authorization();
    // A signature is of its own request: the source needs it as well.
    const source = `${endpoint}/${container}/${this.#encoded(from)}${right.kind === "sas" ? `?${right.query}` : ""}`;
    const what = `copy of ${from}`;
    const notFound = (error: unknown) => (error instanceof StrataError && error.code === "object-not-found" ? objectNotFound(from, error) : error);
    const started = await this.#requests.run({ method: "PUT", key: to, headers: { "x-ms-copy-source": source }, what, signal: options.signal }).catch((error: unknown) => {
      throw notFound(error);
    });
    let status = started.headers.get("x-ms-copy-status");
    for (let poll = 0; status === "pending"; poll++) {
      if (poll === COPY_POLLS_MAX) throw storageUnavailable(`${what}: not done yet`);
      await platform.clock.sleep(COPY_POLL_MS, options.signal);
      status = (await this.#requests.run({ method: "HEAD", key: to, what, signal: options.signal })).headers.get("x-ms-copy-status");
    }
    if (status !== "success") throw storageUnavailable(`${what}: ended as ${status ?? "unknown"}`);
  }

  /** Lists of versions do not tell when a blob was deleted: what had been deleted by then would come back. */
  async timeTravelRecover(): Promise<void> {
    throw timeTravelUnsupported("Azure Blob storage");
  }
}

function md5(bytes: Uint8Array): string {
  return createHash("md5").update(bytes).digest("base64");
}
