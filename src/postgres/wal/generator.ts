/**
 * Makes WAL that looks like a server's, for tests and benchmarks: valid pages, records, links and checksums, but not the
 * work of a real database. What the records say comes from a `RecordGenerator`.
 */
import { ByteWriter, utf8 } from "../../kit/bytes.ts";
import { FORK_MAIN, RMGR } from "./constants.ts";
import { type RecordSpec, encodeRecord } from "./encode-record.ts";
import { type RecordPlace, WalWriter, type WalWriterOptions } from "./wal-writer.ts";

/** Says what the `index`-th record is; same index, same record. */
export type RecordGenerator = (index: number) => RecordSpec;

const LOGICAL_MESSAGE = 0x00;
const HEAP_INSERT = 0x00;
const HEAP_INSERT_INIT_PAGE = 0x80;
const DEFAULT_TABLESPACE = 1663;
/** Where user objects begin. */
const FIRST_NORMAL_OID = 16384;

/** Logical messages, not transactional, with `payloadSizeBytes` of content each. */
export function logicalMessages(version: RecordSpec["version"], options: { readonly prefix: string; readonly payloadSizeBytes: number }): RecordGenerator {
  const prefix = utf8(options.prefix);
  return (index) => {
    const payload = new Uint8Array(options.payloadSizeBytes).fill(index & 0xff);
    const writer = new ByteWriter(32 + prefix.length + payload.length);
    writer.u32le(FIRST_NORMAL_OID).u8(0).zeros(3).u64le(BigInt(prefix.length + 1)).u64le(BigInt(payload.length));
    const mainData = writer.bytes(prefix).u8(0).bytes(payload).finish();
    return { version, rmid: RMGR.LOGICALMSG, info: LOGICAL_MESSAGE, mainData };
  };
}

/**
 * Inserts into one heap: tuples of one text column, `tuplesPerPage` to a page, the first of each page with the record that
 * initializes it.
 */
export function heapInserts(version: RecordSpec["version"], options: { readonly tupleSizeBytes: number; readonly tuplesPerPage: number }): RecordGenerator {
  const { tupleSizeBytes, tuplesPerPage } = options;
  return (index) => {
    const onPage = index % tuplesPerPage;
    const offsetNumber = onPage + 1;
    const mainData = new ByteWriter(4).u16le(offsetNumber).u8(0).finish();
    // xl_heap_header: infomask2 (one attribute), infomask (xmax invalid), hoff; then the padding byte and the column.
    const tuple = new ByteWriter(8 + tupleSizeBytes).u16le(1).u16le(0x0800).u8(24).u8(0);
    const data = tuple.u32le((tupleSizeBytes + 4) * 4).bytes(new Uint8Array(tupleSizeBytes).fill(97 + (index % 26))).finish();
    const block = {
      id: 0,
      spcOid: DEFAULT_TABLESPACE,
      dbOid: 5,
      relNumber: FIRST_NORMAL_OID,
      fork: FORK_MAIN,
      blockNumber: Math.floor(index / tuplesPerPage),
      willInit: onPage === 0,
      data,
    };
    return { version, rmid: RMGR.HEAP, info: onPage === 0 ? HEAP_INSERT_INIT_PAGE : HEAP_INSERT, xid: 1000 + index, mainData, blocks: [block] };
  };
}

export class WalGenerator {
  readonly #writer: WalWriter;
  readonly #generator: RecordGenerator;
  #index = 0;

  /** @throws StrataError fix-input `bad-start-lsn`, `bad-segment-size` */
  constructor(generator: RecordGenerator, options: WalWriterOptions) {
    this.#generator = generator;
    this.#writer = new WalWriter(options);
  }

  /** End of what has been generated. */
  get position(): number {
    return this.#writer.position;
  }

  /** Adds one record. */
  next(): RecordPlace {
    return this.#writer.append(encodeRecord(this.#generator(this.#index++)));
  }

  /** Adds records until at least `sizeBytes` of WAL wait to be taken, and takes them. */
  generate(sizeBytes: number): Uint8Array {
    const end = this.#writer.position + sizeBytes;
    while (this.#writer.position < end) this.next();
    return this.#writer.take();
  }

  /** The bytes generated since the last call; the first begin at the start LSN. */
  take(): Uint8Array {
    return this.#writer.take();
  }
}
