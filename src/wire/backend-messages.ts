/** Messages a server sends, field by field (layouts: protocol.ts). */
import { utf8 } from "../kit/bytes.ts";
import { StrataError } from "../kit/errors.ts";
import type { BackendKey } from "./cancel-keys.ts";
import type { PgMessageWriter } from "./message-writer.ts";
import type { PgColumn } from "./pg-session.ts";
import { AUTH, TAG } from "./protocol.ts";
import type { PgErrorFields } from "./sqlstate.ts";

const TEXT_OID = 25;
const VARIABLE_SIZE = 0xffff;
/** typlen of the types we name: bool, int8, int2, int4, oid. Source: PostgreSQL catalog/pg_type.dat. */
const FIXED_SIZES: Readonly<Record<number, number>> = { 16: 1, 20: 8, 21: 2, 23: 4, 26: 4 };
const NO_TYPE_MODIFIER = 0xffff_ffff;
const NULL_LENGTH = 0xffff_ffff;

export function writeAuthenticationOk(writer: PgMessageWriter): void {
  writer.begin(TAG.authentication).u32(AUTH.ok).finish();
}

export function writeCleartextRequest(writer: PgMessageWriter): void {
  writer.begin(TAG.authentication).u32(AUTH.cleartext).finish();
}

export function writeParameterStatus(writer: PgMessageWriter, name: string, value: string): void {
  writer.begin(TAG.parameterStatus).cstring(name).cstring(value).finish();
}

export function writeBackendKey(writer: PgMessageWriter, { processId, secret }: BackendKey): void {
  writer.begin(TAG.backendKey).u32(processId).u32(secret).finish();
}

/** Says that we speak 3.0 and which `_pq_.` options we do not know. */
export function writeNegotiate(writer: PgMessageWriter, refusedOptions: readonly string[]): void {
  writer.begin(TAG.negotiate).u32(0).u32(refusedOptions.length);
  for (const name of refusedOptions) writer.cstring(name);
  writer.finish();
}

export function writeReady(writer: PgMessageWriter): void {
  writer.begin(TAG.ready).u8(0x49).finish();
}

export function writeCommandComplete(writer: PgMessageWriter, tag: string): void {
  writer.begin(TAG.commandComplete).cstring(tag).finish();
}

/** ErrorResponse or NoticeResponse. */
export function writeFields(writer: PgMessageWriter, tag: number, fields: PgErrorFields): void {
  writer.begin(tag);
  field(writer, "S", fields.severity);
  field(writer, "V", fields.severity);
  field(writer, "C", fields.sqlState);
  field(writer, "M", fields.message);
  if (fields.detail !== undefined) field(writer, "D", fields.detail);
  if (fields.hint !== undefined) field(writer, "H", fields.hint);
  writer.u8(0).finish();
}

function field(writer: PgMessageWriter, code: string, value: string): void {
  writer.u8(code.charCodeAt(0)).cstring(value);
}

export function writeRowDescription(writer: PgMessageWriter, columns: readonly PgColumn[]): void {
  writer.begin(TAG.rowDescription).u16(columns.length);
  for (const column of columns) {
    const typeOid = column.typeOid ?? TEXT_OID;
    writer.cstring(column.name).u32(0).u16(0).u32(typeOid).u16(FIXED_SIZES[typeOid] ?? VARIABLE_SIZE).u32(NO_TYPE_MODIFIER).u16(0);
  }
  writer.finish();
}

export function writeDataRow(writer: PgMessageWriter, row: readonly (string | Uint8Array | null)[]): void {
  writer.begin(TAG.dataRow).u16(row.length);
  for (const value of row) {
    if (value === null) {
      writer.u32(NULL_LENGTH);
      continue;
    }
    const bytes = typeof value === "string" ? utf8(value) : value;
    writer.u32(bytes.length).bytes(bytes);
  }
  writer.finish();
}

/** CopyInResponse, CopyOutResponse or CopyBothResponse in binary format without column list. */
export function writeCopyResponse(writer: PgMessageWriter, tag: number): void {
  if (tag !== TAG.copyIn && tag !== TAG.copyOut && tag !== TAG.copyBoth) {
    throw new StrataError("fix-input", "protocol-violation", `message tag ${tag} starts no COPY`);
  }
  writer.begin(tag).u8(0).u16(0).finish();
}
