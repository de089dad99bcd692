/**
 * What a timeline's objects in the WAL backup amount to, when there is nothing else: where its WAL begins and how far it goes, from
 * names and bytes alone.
 *
 * Covered is every byte of the segments that were uploaded whole (they were committed to their ends), and behind the last of them the
 * unfinished segment of the highest (term, flush LSN), to its flush LSN: whoever had been elected would have had to take it. What was
 * acknowledged after that upload is not there. The last record of a segment may go on in the next one: without that it is not whole.
 */
import { dataViewOf } from "../../kit/bytes.ts";
import { isStrataError, StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { TenantTimelineId } from "../../broker/api/messages.ts";
import { findEndOfWal, findFirstRecord } from "../../postgres/wal/find-records.ts";
import { checkSegmentSize, decodePageHeader, LONG_HEADER_SIZE, type WalGeometry } from "../../postgres/wal/page-header.ts";
import { PG_MAJORS } from "../../postgres/versions/major.ts";
import { VERSION_CONSTANTS } from "../../postgres/versions/constants.ts";
import { downloadBytes, listAll, type RemoteStorage } from "../../remote-storage/remote-storage.ts";
import { POSTGRES_TIMELINE, parseSegmentName, segmentName } from "../wal-store/segments.ts";
import { startInFirstSegment } from "../wal-store/first-segment.ts";
import { parsePartialName, type PartialName } from "./partial-backup.ts";

/** Objects of one timeline that are looked through. */
const MAX_OBJECTS = 1_000_000;
/** Of safekeepers that are restored one by one, each uploads its own once. */
const LISTINGS_MAX = 8;
const SEGMENT_SIZE_OFFSET = 32;

export interface BackupSource {
  readonly storage: RemoteStorage;
  readonly id: TenantTimelineId;
  readonly signal: AbortSignal;
  /** Ends before the first segment that is missing, instead of refusing. */
  readonly ignoreGap: boolean;
}

export interface BackedUpWal {
  readonly geometry: WalGeometry;
  readonly systemId: bigint;
  readonly startLsn: Lsn;
  /** Known to have been committed; the end of a record, as `flushLsn` is. */
  readonly commitLsn: Lsn;
  readonly flushLsn: Lsn;
  /** The unfinished segment that is the end; null when whole ones are. */
  readonly partial: PartialName | null;
  readonly partials: readonly PartialName[];
  /** The segment in which `commitLsn` lies and what follows, cut at `flushLsn`. */
  readonly tail: readonly Piece[];
}

export interface Piece {
  readonly segment: number;
  readonly lsn: Lsn;
  readonly bytes: Uint8Array;
}

/** @throws StrataError not-found `no-wal-backup`; conflict `backup-has-gap`; corrupt `bad-wal-backup`; unavailable from the storage */
export async function readBackedUpWal(source: BackupSource): Promise<BackedUpWal> {
  for (let listing = 1; ; listing++) {
    try {
      return await readAsListed(new BackupReader(source));
    } catch (error) {
      // Whoever was restored first puts his unfinished segment in the place of the others', which were listed a moment ago.
      if (listing === LISTINGS_MAX || !isStrataError(error, "object-not-found")) throw error;
    }
  }
}

async function readAsListed(reader: BackupReader): Promise<BackedUpWal> {
  const listed = await reader.list();
  const { geometry, systemId } = await reader.geometry(listed.first);
  const { first, whole, partial } = choose(listed, geometry, reader.ignoreGap);
  const bytesOf = async (segment: number): Promise<Piece> => {
    const inPartial = segment >= first + whole;
    const name = inPartial && partial !== null ? partial.name : segmentName(segment, geometry.segmentSize);
    const lsn = segment * geometry.segmentSize;
    return { segment, lsn, bytes: await reader.read(name, inPartial && partial !== null ? partial.flushLsn - lsn : geometry.segmentSize) };
  };
  const startLsn = startInFirstSegment((await bytesOf(first)).bytes, first * geometry.segmentSize, geometry);
  if (startLsn === null) throw bad(`segment ${segmentName(first, geometry.segmentSize)} is not the one in which a timeline begins`);
  const last = partial === null ? first + whole - 1 : first + whole;
  const pieces = await piecesFromARecord({ first, last: Math.max(first, first + whole - 1), end: last, geometry, bytesOf });
  const boundary = pieces[0].segment === first ? startLsn : firstRecord(pieces[0], geometry);
  if (boundary === null) throw bad("no record begins in what is there");
  const positions = positionsIn(pieces, { geometry, boundary, partial });
  return { geometry, systemId, startLsn, ...positions, partial, partials: listed.partials, tail: cutTail(pieces, positions, geometry) };
}

interface Listed {
  /** Name of the object that holds the beginning. */
  readonly first: string;
  /** Sizes by name. */
  readonly whole: ReadonlyMap<string, number>;
  readonly partials: readonly PartialName[];
}

class BackupReader {
  readonly #source: BackupSource;

  constructor(source: BackupSource) {
    this.#source = source;
  }

  get ignoreGap(): boolean {
    return this.#source.ignoreGap;
  }

  get #prefix(): string {
    return `${this.#source.id.tenantId}/${this.#source.id.timelineId}/`;
  }

  async list(): Promise<Listed> {
    const { storage, signal } = this.#source;
    const { objects } = await listAll(storage, { prefix: this.#prefix, maxTotal: MAX_OBJECTS, signal });
    const whole = new Map<string, number>();
    const partials: PartialName[] = [];
    for (const { key, sizeBytes } of objects) {
      const name = key.slice(this.#prefix.length);
      const partial = parsePartialName(name);
      if (partial !== null) partials.push(partial);
      else if (/^[0-9A-F]{24}$/.test(name) && Number.parseInt(name.slice(0, 8), 16) === POSTGRES_TIMELINE) whole.set(name, sizeBytes);
    }
    // Names of one length, in the order of the log; a whole segment before what was uploaded of it unfinished.
    const first = [...whole.keys(), ...partials.map(({ name }) => name)].sort().at(0);
    if (first === undefined) throw new StrataError("not-found", "no-wal-backup", `object storage has no WAL of timeline ${this.#prefix.slice(0, -1)}`);
    return { first, whole, partials };
  }

  /** What the log's first page says of it. */
  async geometry(name: string): Promise<{ readonly geometry: WalGeometry; readonly systemId: bigint }> {
    const { storage, signal } = this.#source;
    const { body } = await storage.download(this.#prefix + name, { range: { start: 0, end: LONG_HEADER_SIZE }, signal });
    const header = new Uint8Array(LONG_HEADER_SIZE);
    let length = 0;
    for await (const chunk of body) {
      header.set(chunk.subarray(0, LONG_HEADER_SIZE - length), length);
      length += chunk.length;
    }
    if (length < LONG_HEADER_SIZE) throw bad(`${name} has ${length} bytes`);
    const view = dataViewOf(header);
    const version = PG_MAJORS.find((major) => VERSION_CONSTANTS[major].walPageMagic === view.getUint16(0, true));
    const segmentSize = view.getUint32(SEGMENT_SIZE_OFFSET, true);
    try {
      checkSegmentSize(segmentSize);
      const segment = parseSegmentName(name.slice(0, 24), segmentSize);
      if (version === undefined || segment === null) throw bad(`${name} does not begin as a WAL segment`);
      const geometry = { version, segmentSize };
      return { geometry, systemId: decodePageHeader(view, segment.segment * segmentSize, geometry).systemId };
    } catch (cause) {
      throw bad(`${name} does not begin as a WAL segment`, cause);
    }
  }

  async read(name: string, sizeBytes: number): Promise<Uint8Array> {
    const { storage, signal } = this.#source;
    const bytes = await downloadBytes(storage, this.#prefix + name, { maxBytes: sizeBytes, signal });
    if (bytes.length !== sizeBytes) throw bad(`${name} has ${bytes.length} bytes instead of ${sizeBytes}`);
    return bytes;
  }
}

/** Whole segments without a gap from the first one on, and the unfinished one behind them. */
function choose(listed: Listed, geometry: WalGeometry, ignoreGap: boolean): { first: number; whole: number; partial: PartialName | null } {
  const numberOf = (name: string): number => parseSegmentName(name.slice(0, 24), geometry.segmentSize)?.segment ?? -1;
  const first = numberOf(listed.first);
  let whole = 0;
  for (let size = listed.whole.get(segmentName(first, geometry.segmentSize)); size !== undefined; size = listed.whole.get(segmentName(first + whole, geometry.segmentSize))) {
    if (size !== geometry.segmentSize) throw bad(`${segmentName(first + whole, geometry.segmentSize)} has ${size} bytes instead of ${geometry.segmentSize}`);
    whole++;
  }
  const next = first + whole;
  const beyond = [...listed.whole.keys(), ...listed.partials.map(({ name }) => name)].filter((name) => numberOf(name) > next || (numberOf(name) === next && listed.whole.has(name)));
  if (beyond.length > 0 && !ignoreGap) {
    throw new StrataError("conflict", "backup-has-gap", `${segmentName(next, geometry.segmentSize)} is not among the objects, and what comes after it is (${beyond.length} objects)`);
  }
  const partial = best(listed.partials.filter(({ name, flushLsn }) => numberOf(name) === next && Math.floor(flushLsn / geometry.segmentSize) === next && flushLsn % geometry.segmentSize !== 0));
  if (whole === 0 && partial === null) throw bad(`the segment ${segmentName(first, geometry.segmentSize)}, in which the timeline begins, is not whole and not unfinished either`);
  return { first, whole, partial };
}

/**
 * Of unfinished segments the one of whom a proposer would have had to take the log. One that ends before what another one is
 * committed to is out whatever its term: it may be of a time before the timeline was restored, and terms begin again then.
 */
function best(partials: readonly PartialName[]): PartialName | null {
  const committed = Math.max(...partials.map(({ commitLsn }) => commitLsn));
  return partials.filter(({ flushLsn }) => flushLsn >= committed).sort((a, b) => b.term - a.term || b.flushLsn - a.flushLsn || b.commitLsn - a.commitLsn).at(0) ?? null;
}

/** From the last segment in which a record begins, among those up to `last`, to `end`. A record of many segments takes as many. */
async function piecesFromARecord(range: { first: number; last: number; end: number; geometry: WalGeometry; bytesOf: (segment: number) => Promise<Piece> }): Promise<Piece[]> {
  const { first, last, end, geometry, bytesOf } = range;
  const pieces: Piece[] = [];
  for (let segment = end; segment > last; segment--) pieces.unshift(await bytesOf(segment));
  for (let segment = last; segment >= first; segment--) {
    pieces.unshift(await bytesOf(segment));
    if (firstRecord(pieces[0], geometry) !== null) break;
  }
  return pieces;
}

function firstRecord({ lsn, bytes }: Piece, geometry: WalGeometry): Lsn | null {
  try {
    return findFirstRecord({ ...geometry, lsn, bytes }, lsn);
  } catch (cause) {
    if (isStrataError(cause) && cause.kind === "corrupt") throw bad(`WAL at ${lsnToString(lsn)}`, cause);
    throw cause;
  }
}

function positionsIn(pieces: readonly Piece[], { geometry, boundary, partial }: { geometry: WalGeometry; boundary: Lsn; partial: PartialName | null }): { commitLsn: Lsn; flushLsn: Lsn } {
  const endOf = (some: readonly Piece[], startLsn: Lsn): Lsn => {
    const { endLsn, reason } = findEndOfWal(some.map(({ bytes }) => bytes), { ...geometry, startLsn, firstLsn: some[0].lsn });
    if (reason !== null) throw bad(`WAL is damaged at ${lsnToString(endLsn)}`, reason);
    return endLsn;
  };
  const flushLsn = endOf(pieces, boundary);
  if (partial === null) return { commitLsn: flushLsn, flushLsn };
  if (flushLsn !== partial.flushLsn) throw bad(`the WAL of ${partial.name} ends at ${lsnToString(flushLsn)}`);
  const whole = pieces.slice(0, -1);
  const commitLsn = Math.max(boundary, partial.commitLsn, whole.length === 0 ? 0 : endOf(whole, boundary));
  const from = pieces.filter(({ lsn, bytes }) => lsn + bytes.length > commitLsn);
  // A position that is no record's end would make everything behind it look like nothing.
  if (commitLsn > flushLsn || (from.length > 0 && endOf(from, commitLsn) !== flushLsn)) throw bad(`no record ends at ${lsnToString(partial.commitLsn)}, to which ${partial.name} is committed by its name`);
  return { commitLsn, flushLsn };
}

function cutTail(pieces: readonly Piece[], { commitLsn, flushLsn }: { commitLsn: Lsn; flushLsn: Lsn }, { segmentSize }: WalGeometry): Piece[] {
  return pieces
    .filter(({ lsn }) => lsn + segmentSize > commitLsn && lsn < flushLsn)
    .map((piece) => ({ ...piece, bytes: piece.bytes.subarray(0, flushLsn - piece.lsn) }));
}

function bad(what: string, cause?: unknown): StrataError {
  return new StrataError("corrupt", "bad-wal-backup", `WAL backup: ${what}`, { cause });
}
