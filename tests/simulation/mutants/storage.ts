/** Mistakes of the storage below the rules: what is called durable, and who is sent what. */
import type { Mutant } from "./mutant.ts";

const STORE = "safekeeper/wal-store/wal-store.ts";

const MISTAKES: readonly Mutant[] = [
  { name: "fsync-skipped", rule: "an answer leaves after the WAL it counts is synced", file: STORE, find: "      if (this.#file !== null && this.#flushLsn < this.#writeLsn) await this.#dataSync(this.#file);\n", replace: "" },
  { name: "written-is-durable", rule: "flush_lsn is what is synced, not what is taken in", file: STORE, find: "return this.#flushRecordLsn;", replace: "return this.#records.last;" },
  { name: "segment-name-not-synced", rule: "a segment's name is durable before its content counts", file: STORE, find: "      await this.#syncDirectory();\n      return file;", replace: "      return file;" },
  { name: "segment-not-synced-at-its-end", rule: "a complete segment is synced before it gets its name", file: STORE, find: "    await this.#dataSync(file);\n    await this.#closeFile();", replace: "    await this.#closeFile();" },
  { name: "found-is-durable", rule: "WAL found at a start is written back before it counts", file: STORE, find: "if (options.sync) await makeDurable(", replace: "if (!options.sync) await makeDurable(" },
  { name: "control-file-name-not-synced", rule: "a persisted state survives the loss of power", file: "safekeeper/control-file/control-file.ts", find: "  if (options.sync) await files.syncDirectory(directory);\n", replace: "" },
  { name: "control-file-not-synced", rule: "what is renamed over the old control file is whole", file: "safekeeper/control-file/control-file.ts", find: "    if (options.sync) await file.sync();\n", replace: "" },
  { name: "torn-record-accepted", rule: "the log ends at the last record that is whole", file: "safekeeper/wal-store/end-of-wal.ts", find: "return { lsn: ends.last, segments };", replace: "return { lsn: Math.max(ends.last, position - (position % 8)), segments };" },
  { name: "uncommitted-sent", rule: "a reader is sent committed WAL only", file: "safekeeper/send-wal/start-replication.ts", find: "return this.#options.term === null ? this.#timeline.commitLsn.value : this.#timeline.termFlush.value.flushLsn;", replace: "return this.#timeline.termFlush.value.flushLsn;" },
];

export const STORAGE_MUTANTS: readonly Mutant[] = MISTAKES.map((mutant) => ({ ...mutant, layer: "world" }));
