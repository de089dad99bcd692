/** Messages a client receives, decoded (layouts: protocol.ts). */
import { ByteReader, utf8ToString } from "../kit/bytes.ts";
import type { BackendKey } from "./cancel-keys.ts";
import type { PgColumn } from "./pg-session.ts";
import type { PgErrorFields } from "./sqlstate.ts";

const NULL_LENGTH = -1;

export function parseFields(body: Uint8Array): PgErrorFields {
  const reader = new ByteReader(body, "error or notice");
  const fields = new Map<string, string>();
  for (let code = reader.u8(); code !== 0; code = reader.u8()) fields.set(String.fromCharCode(code), reader.cstring());
  const detail = fields.get("D");
  const hint = fields.get("H");
  return {
    severity: fields.get("V") ?? fields.get("S") ?? "ERROR",
    sqlState: fields.get("C") ?? "XX000",
    message: fields.get("M") ?? "unknown error",
    ...(detail === undefined ? {} : { detail }),
    ...(hint === undefined ? {} : { hint }),
  };
}

export function parseBackendKey(body: Uint8Array): BackendKey {
  const reader = new ByteReader(body, "backend key");
  return { processId: reader.u32be(), secret: reader.u32be() };
}

export function parseParameterStatus(body: Uint8Array): [name: string, value: string] {
  const reader = new ByteReader(body, "parameter status");
  return [reader.cstring(), reader.cstring()];
}

export function parseRowDescription(body: Uint8Array): PgColumn[] {
  const reader = new ByteReader(body, "row description");
  const columns: PgColumn[] = [];
  for (let left = reader.u16be(); left > 0; left--) {
    const name = reader.cstring();
    reader.skip(4 + 2);
    columns.push({ name, typeOid: reader.u32be() });
    reader.skip(2 + 4 + 2);
  }
  return columns;
}

/** Values in text form; bytea and the like come as PostgreSQL prints them. */
export function parseDataRow(body: Uint8Array): (string | null)[] {
  const reader = new ByteReader(body, "data row");
  const row: (string | null)[] = [];
  for (let left = reader.u16be(); left > 0; left--) {
    const length = reader.i32be();
    row.push(length === NULL_LENGTH ? null : utf8ToString(reader.bytes(length)));
  }
  return row;
}
