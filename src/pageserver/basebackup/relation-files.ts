/**
 * Relations as the files of an archive. Most relations have a page or two: many files are read together, and given out
 * in one piece with their headers. Pages fill tar blocks evenly, so there is no padding.
 */
import { copyBytes } from "../../kit/copy.ts";
import type { Key } from "../../keyspace/key.ts";
import { relBlockKey } from "../../keyspace/mapping.ts";
import { PAGE_SIZE, RELATION_SEGMENT_BLOCKS, relationFileName, type RelTag } from "../../keyspace/relation.ts";
import { setPageChecksum } from "../../postgres/page/checksum.ts";
import type { DatadirReader } from "../datadir/datadir-reader.ts";
import { tarHeader } from "./tar.ts";

/** 2 MiB. */
const PAGES_PER_READ = 256;
/** Files without a page must not pile up either. */
const PARTS_PER_READ = 512;

/** A relation fork, and as the files of which fork it goes into the archive. */
export interface RelationFork {
  readonly rel: RelTag;
  readonly asFork: number;
  readonly blocks: number;
}

export interface RelationFilesOptions {
  readonly reader: DatadirReader;
  readonly directory: string;
  readonly checksums: boolean;
  readonly modifiedSeconds: number;
}

/** Blocks of one file, with the file's header before the first of them. */
interface Part {
  readonly rel: RelTag;
  readonly firstBlock: number;
  readonly count: number;
  readonly header: Uint8Array | null;
}

/** @throws StrataError from the timeline */
export async function* relationPieces(forks: readonly RelationFork[], options: RelationFilesOptions): AsyncGenerator<Uint8Array> {
  let parts: Part[] = [];
  let pages = 0;
  for (const part of partsOf(forks, options)) {
    if (pages + part.count > PAGES_PER_READ || parts.length === PARTS_PER_READ) {
      yield await pieceOf(parts, options);
      parts = [];
      pages = 0;
    }
    parts.push(part);
    pages += part.count;
  }
  if (parts.length > 0) yield await pieceOf(parts, options);
}

/** Of at most `PAGES_PER_READ` blocks each. */
function* partsOf(forks: readonly RelationFork[], options: RelationFilesOptions): Generator<Part> {
  const { directory, modifiedSeconds } = options;
  for (const { rel, asFork, blocks } of forks) {
    // A relation without pages has an empty file; one that fills its last segment does not start another.
    for (let segment = 0; segment === 0 || segment * RELATION_SEGMENT_BLOCKS < blocks; segment++) {
      const first = segment * RELATION_SEGMENT_BLOCKS;
      const count = Math.min(RELATION_SEGMENT_BLOCKS, blocks - first);
      const name = `${directory}/${relationFileName(rel.relNumber, asFork, segment)}`;
      let header: Uint8Array | null = tarHeader({ name, kind: "file", sizeBytes: count * PAGE_SIZE, modifiedSeconds });
      for (let done = 0; done === 0 || done < count; done += PAGES_PER_READ) {
        yield { rel, firstBlock: first + done, count: Math.min(PAGES_PER_READ, count - done), header };
        header = null;
      }
    }
  }
}

async function pieceOf(parts: readonly Part[], options: RelationFilesOptions): Promise<Uint8Array> {
  const keys: Key[] = [];
  let sizeBytes = 0;
  for (const { rel, firstBlock, count, header } of parts) {
    for (let block = firstBlock; block < firstBlock + count; block++) keys.push(relBlockKey(rel, block));
    sizeBytes += count * PAGE_SIZE + (header?.length ?? 0);
  }
  const pages = keys.length === 0 ? [] : await options.reader.existingPages(keys);
  const piece = new Uint8Array(sizeBytes);
  let at = 0;
  let next = 0;
  for (const { firstBlock, count, header } of parts) {
    if (header !== null) {
      copyBytes(header, 0, piece, at, header.length);
      at += header.length;
    }
    for (let block = firstBlock; block < firstBlock + count; block++, next++, at += PAGE_SIZE) {
      const page = pages[next];
      // A new page (pd_upper 0) carries no checksum.
      if (page[14] !== 0 || page[15] !== 0) setPageChecksum(page, block, options.checksums);
      copyBytes(page, 0, piece, at, PAGE_SIZE);
    }
  }
  return piece;
}
