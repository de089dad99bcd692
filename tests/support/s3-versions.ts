/** The objects of the S3 test server, with all their versions where the bucket keeps them. */
import { escapeXml } from "../../src/remote-storage/xml.ts";

export interface StoredObject {
  readonly bytes: Uint8Array;
  readonly modified: Date;
}

interface StoredVersion {
  readonly key: string;
  readonly versionId: string;
  readonly modified: Date;
  /** Null for a deletion marker. */
  readonly bytes: Uint8Array | null;
}

export class VersionedObjects {
  /** What a plain listing sees. */
  readonly latest = new Map<string, StoredObject>();
  /** As S3: once on it is never off again, but suspended, when writes replace the version "null". */
  versioning: "never" | "enabled" | "suspended" = "never";
  /** What new versions are dated with. */
  now: () => Date = () => new Date();
  /** Of each key the newest first. */
  readonly #versions = new Map<string, StoredVersion[]>();
  #nextId = 1;

  put(key: string, bytes: Uint8Array): void {
    const modified = this.now();
    this.latest.set(key, { bytes, modified });
    this.#remember({ key, modified, bytes });
  }

  delete(key: string): void {
    this.latest.delete(key);
    if (this.versioning === "never") this.#versions.delete(key);
    else this.#remember({ key, modified: this.now(), bytes: null });
  }

  /** @param versionId null for what a download gets */
  find(key: string, versionId: string | null): Uint8Array | undefined {
    if (versionId === null) return this.latest.get(key)?.bytes;
    return this.#versions.get(key)?.find((version) => version.versionId === versionId)?.bytes ?? undefined;
  }

  versionsOf(key: string): readonly StoredVersion[] {
    return this.#versions.get(key) ?? [];
  }

  #remember(version: Omit<StoredVersion, "versionId">): void {
    // Odd characters, so that nobody forgets to encode it.
    const versionId = this.versioning === "enabled" ? `v${this.#nextId++}/+%26=` : "null";
    const others = (this.#versions.get(version.key) ?? []).filter((other) => versionId !== "null" || other.versionId !== "null");
    this.#versions.set(version.key, [{ ...version, versionId }, ...others]);
  }

  /** The body of an answer to ListObjectVersions. */
  list(query: URLSearchParams): string {
    const prefix = query.get("prefix") ?? "";
    const [keyMarker, idMarker] = [query.get("key-marker"), query.get("version-id-marker")];
    const keys = [...this.#versions.keys()].filter((key) => key.startsWith(prefix)).sort();
    const all = keys.flatMap((key) => this.versionsOf(key));
    const at = all.findIndex((version) => version.key === keyMarker && version.versionId === idMarker);
    if (keyMarker !== null && at < 0) throw new Error(`no version ${idMarker} of ${keyMarker}`);
    const rest = all.slice(at + 1);
    const page = rest.slice(0, Number(query.get("max-keys") ?? 1000));
    const last = page.at(-1);
    const more = last !== undefined && rest.length > page.length;
    const next = more ? `<NextKeyMarker>${escapeXml(last.key)}</NextKeyMarker><NextVersionIdMarker>${escapeXml(last.versionId)}</NextVersionIdMarker>` : "";
    return `<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><IsTruncated>${more}</IsTruncated>${next}${page.map((version) => this.#element(version)).join("")}</ListVersionsResult>`;
  }

  #element({ key, versionId, modified, bytes }: StoredVersion): string {
    const tag = bytes === null ? "DeleteMarker" : "Version";
    const isLatest = this.#versions.get(key)?.[0]?.versionId === versionId;
    const size = bytes === null ? "" : `<Size>${bytes.length}</Size>`;
    return `<${tag}><Key>${escapeXml(key)}</Key><VersionId>${escapeXml(versionId)}</VersionId><IsLatest>${isLatest}</IsLatest><LastModified>${modified.toISOString()}</LastModified>${size}</${tag}>`;
  }
}
