/** Pagestream and base backup against their documented bytes, spoken over a socket to a running pageserver with a real cluster in it. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { crc32c } from "../../src/kit/crc32c.ts";
import { LSN_MAX, parseLsn } from "../../src/kit/lsn.ts";
import { decodeRequest, decodeResponse, encodeGetPage, encodeRelRequest, errorParts } from "../../src/pageserver/api/pagestream.ts";
import { headersOnlyWal } from "../../src/pageserver/basebackup/layout.ts";
import { decodeControlFile } from "../../src/postgres/control-file/control-file.ts";
import { TENANT_ID, TestPageserver } from "../support/test-pageserver.ts";
import { bytes, cstr, u16, u16le, u32, u32le, u64, u64le, u8, zeros } from "./bytes.ts";
import { RawLibpq } from "./raw-libpq.ts";
import { type TarFile, untar } from "./untar.ts";

const ROOT = "aa".repeat(16);
const PAGE = 8192;
const SEGMENT = 16 * 1024 * 1024;
const ALL_ONES = 0xffff_ffff_ffff_ffffn;
const REQUEST_ID = 0x8000_0000_0000_0007n;
const PG_CLASS = bytes(u32(1663), u32(5), u32(1259), u8(0));
const NO_SUCH_RELATION = bytes(u32(1663), u32(5), u32(999_999), u8(0));

const server = new TestPageserver();
let lastLsn: number;
let prevLsn: string;
let logicalSizeBytes: number;

beforeAll(async () => {
  await server.start();
  await server.attach(1);
  const created = await server.http("POST", `/v1/tenant/${TENANT_ID}/timeline`, { new_timeline_id: ROOT, pg_version: 17 });
  expect(created.status).toBe(201);
  const info = created.json as Record<string, string>;
  lastLsn = parseLsn(info.last_record_lsn);
  prevLsn = info.prev_record_lsn;
  logicalSizeBytes = Number(info.current_logical_size);
}, 30_000);
afterAll(() => server.remove());

async function open(command: string): Promise<RawLibpq> {
  const { raw } = await RawLibpq.session(server.running.pgPort, { user: "cloud_admin", database: "postgres" });
  raw.query(command);
  return raw;
}

describe("pagestream codec", () => {
  const header = bytes(u64(REQUEST_ID), u64(ALL_ONES), u64(0x1_0000_0028));
  const fields = { requestId: REQUEST_ID, requestLsn: LSN_MAX, notModifiedSince: 0x1_0000_0028 };
  const rel = { spcOid: 1663, dbOid: 5, relNumber: 1259, fork: 0 };

  test("requests of both versions", () => {
    const without = header.subarray(8);
    const cases: [number, Uint8Array, Record<string, unknown>][] = [
      [0, PG_CLASS, { kind: "exists", rel }],
      [1, PG_CLASS, { kind: "nblocks", rel }],
      [2, bytes(PG_CLASS, u32(0x8000_0001)), { kind: "getpage", rel, block: 0x8000_0001 }],
      [3, u32(5), { kind: "dbsize", dbOid: 5 }],
      [4, bytes(u8(2), u32(3)), { kind: "slru-segment", slru: "multixact-offsets", segment: 3 }],
    ];
    for (const [tag, body, expected] of cases) {
      const v3 = bytes(u8(tag), header, body);
      expect(decodeRequest(v3, 3)).toMatchObject({ ...expected, requestLsn: LSN_MAX, notModifiedSince: 0x1_0000_0028, echo: v3.subarray(1), errorEcho: header });
      expect(decodeRequest(bytes(u8(tag), without, body), 2)).toMatchObject({ ...expected, requestLsn: LSN_MAX });
      // In version 2 the eight bytes of the request id are eight too many, in version 3 without them eight are missing.
      expect(() => decodeRequest(v3, 2)).toThrow();
      expect(() => decodeRequest(bytes(u8(tag), without, body), 3)).toThrow();
    }
    expect(bytes(encodeGetPage(fields, { rel, block: 9 }, 3))).toEqual(bytes(u8(2), header, PG_CLASS, u32(9)));
    expect(bytes(encodeGetPage(fields, { rel, block: 9 }, 2))).toEqual(bytes(u8(2), without, PG_CLASS, u32(9)));
    expect(bytes(encodeRelRequest("exists", fields, { rel, version: 3 }))).toEqual(bytes(u8(0), header, PG_CLASS));
    expect(bytes(encodeRelRequest("nblocks", fields, { rel, version: 2 }))).toEqual(bytes(u8(1), without, PG_CLASS));
  });

  test("errors: three numbers and a C string; without the numbers in version 2", () => {
    const v3 = decodeRequest(bytes(u8(1), header, PG_CLASS), 3);
    expect(bytes(...errorParts(v3, "no such thing"))).toEqual(bytes(u8(103), header, cstr("no such thing")));
    expect(() => decodeResponse(bytes(u8(103), header, cstr("no such thing")), 3)).toThrow("no such thing");
    const v2 = decodeRequest(bytes(u8(1), header.subarray(8), PG_CLASS), 2);
    expect(bytes(...errorParts(v2, "no such thing"))).toEqual(bytes(u8(103), cstr("no such thing")));
  });
});

describe.each([3, 2] as const)("pagestream_v%d over a socket", (version) => {
  const header = bytes(...(version === 3 ? [u64(REQUEST_ID)] : []), u64(ALL_ONES), u64(8));
  const echo = (body: Uint8Array): Uint8Array => (version === 3 ? bytes(header, body) : zeros(0));

  test("each request and its answer, in order, whatever is pipelined", async () => {
    const raw = await open(`pagestream_v${version} ${TENANT_ID} ${ROOT}`);
    expect(await raw.expect("W")).toEqual(bytes(u8(0), u16(0)));
    const block = bytes(PG_CLASS, u32(1));
    for (const request of [bytes(u8(0), header, PG_CLASS), bytes(u8(0), header, NO_SUCH_RELATION), bytes(u8(1), header, PG_CLASS), bytes(u8(2), header, block), bytes(u8(1), header, NO_SUCH_RELATION), bytes(u8(3), header, u32(5)), bytes(u8(4), header, u8(0), u32(0)), bytes(u8(2), header, block)]) raw.copyData(request);

    expect(await raw.expect("d")).toEqual(bytes(u8(100), echo(PG_CLASS), u8(1)));
    expect(await raw.expect("d")).toEqual(bytes(u8(100), echo(NO_SUCH_RELATION), u8(0)));
    const blocks = await raw.expect("d");
    expect(blocks.subarray(0, -4)).toEqual(bytes(u8(101), echo(PG_CLASS)));
    expect(blocks.readUInt32BE(blocks.length - 4)).toBeGreaterThan(5);
    const page = await raw.expect("d");
    expect(page.subarray(0, -PAGE)).toEqual(bytes(u8(102), echo(block)));
    // A heap page: pd_lower < pd_upper <= pd_special = 8192, page size and layout version 4.
    const image = page.subarray(-PAGE);
    expect([image.readUInt16LE(16), image.readUInt16LE(18)]).toEqual([PAGE, PAGE | 4]);
    expect(image.readUInt16LE(12)).toBeLessThanOrEqual(image.readUInt16LE(14));
    const error = await raw.expect("d");
    expect(error.subarray(0, version === 3 ? 25 : 1)).toEqual(bytes(u8(103), version === 3 ? header : zeros(0)));
    expect(error.subarray(version === 3 ? 25 : 1).toString()).toMatch(/^relation 1663\/5\/999999 does not exist.*\0$/);
    const size = await raw.expect("d");
    expect(size.subarray(0, -8)).toEqual(bytes(u8(104), echo(u32(5))));
    const sizeBytes = Number(size.readBigInt64BE(size.length - 8));
    expect(sizeBytes % PAGE).toBe(0);
    expect(sizeBytes).toBeGreaterThan(logicalSizeBytes / 10);
    const slru = await raw.expect("d");
    expect(slru.subarray(0, slru.length - PAGE)).toEqual(bytes(u8(105), echo(bytes(u8(0), u32(0))), u32(1)));
    // Transactions 4 to 7, of initdb, committed: status 1, two bits each, in the second byte.
    expect(slru[slru.length - PAGE + 1]).toBe(0b01010101);
    expect(await raw.expect("d")).toEqual(page);

    raw.message("c");
    expect((await raw.untilReady()).map(({ tag }) => tag)).toEqual(["c", "C", "Z"]);
    raw.close();
  }, 30_000);

  test("a message that is no request ends the stream with an error; the session takes the next command", async () => {
    for (const garbage of [zeros(0), u8(9), bytes(u8(2), header), bytes(u8(2), header, PG_CLASS, u32(1), u8(0)), bytes(u8(4), header, u8(7), u32(0)), Buffer.alloc(5000, 0xa5)]) {
      const raw = await open(`pagestream_v${version} ${TENANT_ID} ${ROOT}`);
      await raw.expect("W");
      raw.copyData(garbage);
      expect((await raw.untilReady()).map(({ tag }) => tag)).toEqual(["E", "Z"]);
      raw.query("set x = 1");
      expect((await raw.untilReady()).map(({ tag }) => tag)).toEqual(["C", "Z"]);
      raw.close();
    }
  });
});

describe("base backup", () => {
  async function backup(command: string): Promise<Map<string, TarFile>> {
    const raw = await open(command);
    expect(await raw.expect("H")).toEqual(bytes(u8(0), u16(0)));
    const frames = await raw.untilReady();
    expect(frames.slice(-3).map(({ tag, body }) => [tag, body.toString("latin1")])).toEqual([["c", ""], ["C", "SELECT 1\0"], ["Z", "I"]]);
    const data = frames.slice(0, -3);
    expect(new Set(data.map(({ tag }) => tag))).toEqual(new Set(["d"]));
    raw.close();
    const stream = Buffer.concat(data.map(({ body }) => body));
    return untar(command.includes("--gzip") ? Buffer.from(Bun.gunzipSync(new Uint8Array(stream))) : stream);
  }
  const content = (files: Map<string, TarFile>, name: string): Buffer => files.get(name)?.content ?? Buffer.from(`${name} is missing`);

  test("for a patched server: signal files with the link back, pg_control without a checkpoint, a WAL segment of headers", async () => {
    const files = await backup(`basebackup ${TENANT_ID} ${ROOT}`);
    for (const name of ["neon.signal", "zenith.signal"]) expect(content(files, name).toString()).toBe(`PREV LSN: ${prevLsn}`);
    const control = content(files, "global/pg_control");
    expect(control.length).toBe(8192);
    expect([control.readUInt32LE(8), control.readUInt32LE(16)]).toEqual([1700, 1]);
    expect([control.readBigUInt64LE(32), control.readBigUInt64LE(40)]).toEqual([0n, BigInt(lastLsn)]);
    expect(control.readUInt32LE(288)).toBe(crc32c(control, 0, 288));

    const walName = `pg_wal/00000001${"0".repeat(8)}${Math.floor(lastLsn / SEGMENT).toString(16).toUpperCase().padStart(8, "0")}`;
    expect([...files.keys()].filter((name) => /^pg_wal\/[0-9A-F]{24}$/.test(name))).toEqual([walName]);
    const expected = Buffer.alloc(SEGMENT);
    bytes(u16le(0xd116), u16le(2), u32le(1), u64le(lastLsn - (lastLsn % SEGMENT)), u32le(0), zeros(4), control.subarray(0, 8), u32le(SEGMENT), u32le(8192)).copy(expected);
    const pageLsn = lastLsn - (lastLsn % PAGE);
    expect(lastLsn - pageLsn).toBeGreaterThan(24);
    bytes(u16le(0xd116), u16le(1), u32le(1), u64le(pageLsn), u32le(lastLsn - pageLsn - 24), zeros(4)).copy(expected, pageLsn % SEGMENT);
    expect(content(files, walName).equals(expected)).toBe(true);

    // No relation files: a patched server asks for pages one by one.
    expect([...files.keys()].filter((name) => /^(base\/\d+|global)\/\d/.test(name))).toEqual([]);
    for (const name of ["PG_VERSION", "postgresql.conf", "pg_hba.conf", "global/pg_filenode.map", "base/5/PG_VERSION", "base/5/pg_filenode.map", "pg_xact/0000", "pg_multixact/offsets/0000"]) expect([name, files.get(name)?.type]).toEqual([name, "0"]);
    expect(content(files, "base/5/PG_VERSION").toString()).toBe("17\n");
    for (const name of ["base/", "global/", "pg_wal/", "pg_twophase/", "pg_tblspc/", "pg_logical/snapshots/", "pg_wal/archive_status/"]) expect([name, files.get(name)?.type]).toEqual([name, "5"]);
  }, 30_000);

  test("at an LSN it is the same, and so it is compressed; before a link is known it says so", async () => {
    const lsn = `${Math.floor(lastLsn / 2 ** 32).toString(16)}/${(lastLsn % 2 ** 32).toString(16)}`.toUpperCase();
    const plain = await backup(`basebackup ${TENANT_ID} ${ROOT}`);
    for (const command of [`basebackup ${TENANT_ID} ${ROOT} ${lsn}`, `basebackup ${TENANT_ID} ${ROOT} ${lsn} --gzip`, `basebackup ${TENANT_ID} ${ROOT} --gzip --replica`]) {
      const other = await backup(command);
      expect([...other.keys()]).toEqual([...plain.keys()]);
      for (const [name, file] of plain) expect([name, other.get(name)?.content.equals(file.content)]).toEqual([name, true]);
    }
    const branch = "bb".repeat(16);
    await server.http("POST", `/v1/tenant/${TENANT_ID}/timeline`, { new_timeline_id: branch, ancestor_timeline_id: ROOT, ancestor_start_lsn: lsn });
    expect(content(await backup(`basebackup ${TENANT_ID} ${branch}`), "neon.signal").toString()).toBe(`PREV LSN: ${prevLsn}`);
  }, 30_000);

  test("for an unmodified server: relations, the LSN as the place of the checkpoint to come, no WAL", async () => {
    const files = await backup(`fullbasebackup ${TENANT_ID} ${ROOT}`);
    expect(content(files, "base/5/1259").length % PAGE).toBe(0);
    expect(content(files, "base/5/1259").length).toBeGreaterThan(5 * PAGE);
    expect([...files.keys()].filter((name) => /^pg_wal\/[0-9A-F]{24}$/.test(name) || /_fsm(\.\d+)?$/.test(name))).toEqual([]);
    const control = content(files, "global/pg_control");
    expect([control.readUInt32LE(16), control.readBigUInt64LE(32), control.readBigUInt64LE(40)]).toEqual([1, BigInt(lastLsn), BigInt(lastLsn)]);
    expect(content(files, "zenith.signal").toString()).toBe(`PREV LSN: ${prevLsn}`);
  }, 30_000);

  test("the header-only segment at the edges of pages and segments", async () => {
    const control = { ...decodeControlFile(content(await backup(`basebackup ${TENANT_ID} ${ROOT}`), "global/pg_control")), systemId: 0x0102_0304_0506_0708n };
    const base = 0x1_0500_0000;
    const long = (info: number, remaining: number): Buffer => bytes(u16le(0xd116), u16le(2 | info), u32le(1), u64le(base), u32le(remaining), zeros(4), u64le(0x0102_0304_0506_0708n), u32le(SEGMENT), u32le(8192));
    const at = (lsn: number): string => {
      const segment = Buffer.alloc(3 * PAGE);
      for (const header of headersOnlyWal(lsn, control)) segment.set(header.bytes, header.at);
      return segment.toString("hex");
    };
    const expected = (...parts: [number, Uint8Array][]): string => {
      const segment = Buffer.alloc(3 * PAGE);
      for (const [offset, part] of parts) segment.set(part, offset);
      return segment.toString("hex");
    };
    const short = (page: number, info: number, remaining: number): Buffer => bytes(u16le(0xd116), u16le(info), u32le(1), u64le(base + page * PAGE), u32le(remaining), zeros(4));
    expect(at(base + 40)).toBe(expected([0, long(0, 0)]));
    expect(at(base + 1000)).toBe(expected([0, long(1, 960)]));
    expect(at(base + PAGE + 1000)).toBe(expected([0, long(0, 0)], [PAGE, short(1, 1, 976)]));
    expect(at(base + 2 * PAGE + 24)).toBe(expected([0, long(0, 0)], [2 * PAGE, short(2, 0, 0)]));
  }, 30_000);

  test("what cannot be backed up is an ErrorResponse and nothing else", async () => {
    for (const [command, state, words] of [
      [`basebackup ${TENANT_ID} ${"c".repeat(32)}`, "42704", "was not found"],
      [`basebackup ${TENANT_ID} ${ROOT} 0/8`, "22023", "garbage collected"],
      [`basebackup ${TENANT_ID} ${ROOT} --nonsense`, "22023", "unknown flag"],
      [`basebackup ${TENANT_ID}`, "22023", "are wanted"],
      [`basebackup ${TENANT_ID.slice(1)} ${ROOT}`, "22023", "not a tenant id"],
    ] as const) {
      const raw = await open(command);
      const frames = await raw.untilReady();
      expect(frames.map(({ tag }) => tag)).toEqual(["E", "Z"]);
      expect(frames[0].body.toString()).toContain(`C${state}\0`);
      expect(frames[0].body.toString()).toContain(words);
      raw.close();
    }
  });
});
