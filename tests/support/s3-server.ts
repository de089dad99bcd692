/**
 * An S3 server for tests, in memory: SigV4 checked (payload hash included), multipart uploads, ranges, ListObjectsV2,
 * DeleteObjects, copies; versions where `stored.versioning` says so. `failures` makes the next requests fail.
 */
import { createHash, createHmac } from "node:crypto";
import { escapeXml, xmlBlocks, xmlText } from "../../src/remote-storage/xml.ts";
import { type StoredObject, VersionedObjects } from "./s3-versions.ts";

interface Call {
  readonly request: Request;
  readonly url: URL;
  readonly key: string;
  readonly body: Uint8Array;
}

export class S3TestServer {
  readonly stored = new VersionedObjects();
  /** Entries of a page of versions, at most. */
  versionsPerPage = 1000;
  readonly #uploads = new Map<string, Map<number, Uint8Array>>();
  readonly #server: ReturnType<typeof Bun.serve>;
  readonly bucket = "test-bucket";
  readonly region = "test-region";
  readonly credentials = { accessKeyId: "AKIDTEST", secretAccessKey: "secret/of+the=test" };
  /** For the next requests in turn: the status to fail with, with the store's word for it, or null to serve one. */
  readonly failures: (number | { readonly status: number; readonly code: string } | null)[] = [];
  requests = 0;

  constructor() {
    this.#server = Bun.serve({ port: 0, hostname: "127.0.0.1", maxRequestBodySize: 64 * 1024 * 1024, fetch: (request) => this.#handle(request) });
  }

  get objects(): ReadonlyMap<string, StoredObject> {
    return this.stored.latest;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#server.port}`;
  }

  stop(): void {
    this.#server.stop(true);
  }

  async #handle(request: Request): Promise<Response> {
    this.requests++;
    const url = new URL(request.url);
    const body = new Uint8Array(await request.arrayBuffer());
    const failure = this.failures.shift();
    if (typeof failure === "number") return fail(failure, "InjectedFailure");
    if (failure !== undefined && failure !== null) return fail(failure.status, failure.code);
    const [, bucket, ...rest] = decodeURIComponent(url.pathname).split("/");
    const refused = this.#checkSignature(request, url, body);
    if (refused !== null) return fail(403, refused);
    if (bucket !== this.bucket) return fail(404, "NoSuchBucket");
    return this.#dispatch({ request, url, key: rest.join("/"), body });
  }

  #dispatch(call: Call): Response {
    const { request, url, key } = call;
    const query = url.searchParams;
    if (request.method === "GET" && query.has("versions")) return this.#listVersions(query);
    if (request.method === "GET") return key === "" ? this.#list(query) : this.#get(call);
    if (request.method === "POST") {
      if (query.has("delete")) return this.#deleteMany(call);
      return query.has("uploads") ? this.#startUpload() : this.#completeUpload(call);
    }
    if (request.method === "PUT") {
      if (query.has("uploadId")) return this.#putPart(call);
      return request.headers.has("x-amz-copy-source") ? this.#copy(call) : this.#put(key, call.body);
    }
    if (query.has("uploadId")) this.#uploads.delete(query.get("uploadId") ?? "");
    else this.stored.delete(key);
    return new Response(null, { status: 204 });
  }

  /** Null when good, else why not. */
  #checkSignature(request: Request, url: URL, body: Uint8Array): string | null {
    const match = /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/s3\/aws4_request, SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$/.exec(request.headers.get("authorization") ?? "");
    if (match === null) return "MissingAuthentication";
    const [, accessKeyId, date, region, signedHeaders, signature] = match as unknown as string[];
    const payload = sha256(body);
    if (accessKeyId !== this.credentials.accessKeyId || region !== this.region) return "InvalidAccessKeyId";
    if (request.headers.get("x-amz-content-sha256") !== payload) return "XAmzContentSHA256Mismatch";
    const names = signedHeaders.split(";");
    for (const needed of ["host", "x-amz-content-sha256", "x-amz-date"]) if (!names.includes(needed)) return "UnsignedHeader";
    const headers = names.map((name) => `${name}:${(name === "host" ? url.host : (request.headers.get(name) ?? "")).trim()}\n`).join("");
    const path = decodeURIComponent(url.pathname).split("/").map(strictEncode).join("/");
    const query = [...url.searchParams].map(([name, value]) => `${strictEncode(name)}=${strictEncode(value)}`).sort().join("&");
    const canonical = [request.method, path, query, headers, signedHeaders, payload].join("\n");
    const amzDate = request.headers.get("x-amz-date") ?? "";
    const toSign = ["AWS4-HMAC-SHA256", amzDate, `${date}/${region}/s3/aws4_request`, sha256(canonical)].join("\n");
    const signingKey = ["aws4_request", "s3", region, date].reduceRight<Buffer>((key, part) => hmac(key, part), Buffer.from(`AWS4${this.credentials.secretAccessKey}`));
    return hmac(signingKey, toSign).toString("hex") === signature ? null : "SignatureDoesNotMatch";
  }

  #put(key: string, bytes: Uint8Array): Response {
    this.stored.put(key, bytes);
    return new Response(null, { headers: { etag: etagOf(bytes) } });
  }

  #get({ request, key }: Call): Response {
    const object = this.objects.get(key);
    if (object === undefined) return fail(404, "NoSuchKey");
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.get("range") ?? "");
    if (range === null) return new Response(object.bytes as Uint8Array<ArrayBuffer>);
    const start = Number(range[1]);
    const end = range[2] === "" ? object.bytes.length : Math.min(object.bytes.length, Number(range[2]) + 1);
    if (start >= object.bytes.length) return fail(416, "InvalidRange");
    return new Response(object.bytes.slice(start, end), { status: 206 });
  }

  #list(query: URLSearchParams): Response {
    const prefix = query.get("prefix") ?? "";
    const delimiter = query.get("delimiter");
    const after = Buffer.from(query.get("continuation-token") ?? "", "base64").toString();
    const entries = new Map<string, StoredObject | null>();
    for (const key of [...this.objects.keys()].filter((name) => name.startsWith(prefix)).sort()) {
      const cut = delimiter === null ? -1 : key.indexOf(delimiter, prefix.length);
      if (cut < 0) entries.set(key, this.objects.get(key) as StoredObject);
      else entries.set(key.slice(0, cut + 1), null);
    }
    const rest = [...entries].filter(([key]) => after === "" || key > after);
    const page = rest.slice(0, Number(query.get("max-keys") ?? 1000));
    const contents = page.map(([key, object]) =>
      object === null
        ? `<CommonPrefixes><Prefix>${escapeXml(key)}</Prefix></CommonPrefixes>`
        : `<Contents><Key>${escapeXml(key)}</Key><LastModified>${object.modified.toISOString()}</LastModified><Size>${object.bytes.length}</Size></Contents>`,
    );
    const more = rest.length > page.length ? `<NextContinuationToken>${Buffer.from(page[page.length - 1][0]).toString("base64")}</NextContinuationToken>` : "";
    return xml(`<ListBucketResult><IsTruncated>${more !== ""}</IsTruncated>${more}${contents.join("")}</ListBucketResult>`);
  }

  #listVersions(query: URLSearchParams): Response {
    query.set("max-keys", String(this.versionsPerPage));
    return xml(this.stored.list(query));
  }

  #deleteMany({ request, body }: Call): Response {
    if (request.headers.get("content-md5") !== createHash("md5").update(body).digest("base64")) return fail(400, "BadDigest");
    const keys = xmlBlocks(new TextDecoder().decode(body), "Key");
    if (keys.length > 1000) return fail(400, "MalformedXML");
    for (const key of keys) this.stored.delete(xmlText(`<k>${key}</k>`, "k") ?? "");
    return xml("<DeleteResult></DeleteResult>");
  }

  #copy({ request, key }: Call): Response {
    const [path, versionId] = (request.headers.get("x-amz-copy-source") ?? "").split("?versionId=");
    const source = decodeURIComponent(path).replace(`/${this.bucket}/`, "");
    if (source === key && versionId === undefined) return fail(400, "InvalidRequest");
    const bytes = this.stored.find(source, versionId === undefined ? null : decodeURIComponent(versionId));
    if (bytes === undefined) return fail(404, "NoSuchKey");
    this.stored.put(key, bytes);
    return xml("<CopyObjectResult></CopyObjectResult>");
  }

  #startUpload(): Response {
    const id = `upload ${this.#uploads.size + 1}&`;
    this.#uploads.set(id, new Map());
    return xml(`<InitiateMultipartUploadResult><UploadId>${escapeXml(id)}</UploadId></InitiateMultipartUploadResult>`);
  }

  #putPart({ url, body }: Call): Response {
    const parts = this.#uploads.get(url.searchParams.get("uploadId") ?? "");
    if (parts === undefined) return fail(404, "NoSuchUpload");
    parts.set(Number(url.searchParams.get("partNumber")), body);
    return new Response(null, { headers: { etag: etagOf(body) } });
  }

  #completeUpload({ url, key, body }: Call): Response {
    const id = url.searchParams.get("uploadId") ?? "";
    const parts = this.#uploads.get(id);
    if (parts === undefined) return fail(404, "NoSuchUpload");
    const chosen: Uint8Array[] = [];
    for (const block of xmlBlocks(new TextDecoder().decode(body), "Part")) {
      const part = parts.get(Number(xmlText(block, "PartNumber")));
      if (part === undefined || xmlText(block, "ETag") !== etagOf(part)) return fail(400, "InvalidPart");
      chosen.push(part);
    }
    if (chosen.slice(0, -1).some((part) => part.length < 5 * 1024 * 1024)) return fail(400, "EntityTooSmall");
    this.#uploads.delete(id);
    this.stored.put(key, new Uint8Array(Buffer.concat(chosen)));
    return xml("<CompleteMultipartUploadResult></CompleteMultipartUploadResult>");
  }

  get unfinishedUploads(): number {
    return this.#uploads.size;
  }
}

function sha256(data: Uint8Array | string): string {
  return createHash("sha256").update(data).digest("hex");
}

function hmac(key: Uint8Array, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}

function etagOf(bytes: Uint8Array): string {
  return `"${createHash("md5").update(bytes).digest("hex")}"`;
}

function strictEncode(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

function xml(text: string): Response {
  return new Response(`<?xml version="1.0" encoding="UTF-8"?>${text}`, { headers: { "content-type": "application/xml" } });
}

function fail(status: number, code: string): Response {
  return new Response(`<Error><Code>${code}</Code><Message>${code}</Message></Error>`, { status });
}
