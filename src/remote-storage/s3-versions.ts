/**
 * A bucket's versions as ListObjectVersions tells them, page by page, at most so many.
 *
 * Source: Amazon S3 API reference (ListObjectVersions). Within a key the newest version comes first, deletion markers
 * among the others; the version id "null" is of a time without versioning, and overwritten by the next of that kind.
 */
import { StrataError } from "../kit/errors.ts";
import { storageUnavailable } from "./remote-storage.ts";
import { type ObjectVersion, timeTravelUnsupported } from "./time-travel.ts";
import { xmlElements, xmlText } from "./xml.ts";

export interface VersionListing {
  /** Prepended to all keys of the storage, and taken off again. */
  readonly storePrefix: string;
  readonly prefix: string;
  readonly maxVersions: number;
  /** Answers the query with the body of a reply. */
  readonly ask: (query: Readonly<Record<string, string>>) => Promise<string>;
}

/**
 * @throws StrataError fix-input `object-not-versioned` where the bucket has kept no versions; fix-input `too-many-versions`;
 *   fix-input `time-travel-unsupported` for a store that does not know the request; unavailable `storage-unavailable`
 */
export async function listVersions(listing: VersionListing): Promise<ObjectVersion[]> {
  const { storePrefix, prefix, maxVersions, ask } = listing;
  const versions: ObjectVersion[] = [];
  let markers: Record<string, string> = {};
  for (;;) {
    const text = await ask({ versions: "", prefix: storePrefix + prefix, ...markers });
    // A store without versions may take this for a plain listing.
    if (!/<ListVersionsResult[\s>]/.test(text)) throw timeTravelUnsupported("a store that does not list versions");
    const page = xmlElements(text, ["Version", "DeleteMarker"]).map((element) => versionOf(element, storePrefix));
    versions.push(...page);
    if (versions.length > maxVersions) throw new StrataError("fix-input", "too-many-versions", `"${prefix}" has more than ${maxVersions} versions and deletion markers`);
    if (xmlText(text, "IsTruncated") !== "true") return versions;
    const keyMarker = xmlText(text, "NextKeyMarker");
    // Each page has an entry or more, so that the bound above ends this.
    if (page.length === 0 || !keyMarker) throw storageUnavailable(`versions of "${prefix}": the list was cut, and does not say where it goes on`);
    const versionIdMarker = xmlText(text, "NextVersionIdMarker");
    markers = { "key-marker": keyMarker, ...(versionIdMarker ? { "version-id-marker": versionIdMarker } : {}) };
  }
}

function versionOf({ tag, text }: { readonly tag: string; readonly text: string }, storePrefix: string): ObjectVersion {
  const key = xmlText(text, "Key");
  const versionId = xmlText(text, "VersionId");
  const modifiedMs = Date.parse(xmlText(text, "LastModified") ?? "");
  if (!key?.startsWith(storePrefix) || !versionId || Number.isNaN(modifiedMs)) throw storageUnavailable(`versions: an entry without key, version or time: ${text.slice(0, 300)}`);
  if (versionId === "null") throw new StrataError("fix-input", "object-not-versioned", `object ${key} has no version id: the bucket's versioning is off, or was when it was written`);
  return { key: key.slice(storePrefix.length), modifiedMs, versionId: tag === "Version" ? versionId : null };
}
