/**
 * PostgreSQL frontend/backend protocol, version 3: the numbers. All integers are big-endian.
 *
 * | packet                 | layout                                                                         |
 * | ---------------------- | ------------------------------------------------------------------------------ |
 * | start-up (no tag)      | u32 length (itself included), u32 code, then per code                           |
 * |   code 196608 (3.0)    | cstring name, cstring value, …, u8 0                                            |
 * |   code 80877103        | SSLRequest; answered with one byte `S` or `N`                                   |
 * |   code 80877104        | GSSENCRequest; answered with one byte `N`                                       |
 * |   code 80877102        | CancelRequest: u32 process id, u32 secret; never answered                       |
 * | every other message    | u8 tag, u32 length (itself included, the tag not), body                         |
 * | R authentication       | u32 kind: 0 ok, 3 cleartext, 5 md5 + 4 salt bytes, 10/11/12 SASL                |
 * | S parameter status     | cstring name, cstring value                                                     |
 * | K backend key          | u32 process id, u32 secret                                                      |
 * | v negotiate            | u32 newest minor version, u32 n, n × cstring of refused options                 |
 * | Z ready                | u8 `I`, `T` or `E`                                                              |
 * | Q query                | cstring                                                                         |
 * | T row description      | u16 n, n × (cstring name, u32 table, u16 column, u32 type, i16 size, i32 mod, u16 format) |
 * | D data row             | u16 n, n × (i32 length or -1, bytes)                                            |
 * | C command complete     | cstring                                                                         |
 * | E error, N notice      | n × (u8 field, cstring), u8 0                                                   |
 * | G, H, W copy in/out/both | u8 format, u16 columns, columns × u16 format                                  |
 * | d, c, f copy data/done/fail | bytes / nothing / cstring                                                  |
 *
 * Source: PostgreSQL manual, "Frontend/Backend Protocol"; src/include/libpq/pqcomm.h.
 */
export const PROTOCOL_MAJOR = 3;
export const PROTOCOL_3_0 = 3 << 16;
export const SSL_REQUEST_CODE = 80877103;
export const GSSENC_REQUEST_CODE = 80877104;
export const CANCEL_REQUEST_CODE = 80877102;

/** PostgreSQL's MAX_STARTUP_PACKET_LENGTH. */
export const STARTUP_MAX_BYTES = 10_000;
/** Query strings, WAL pushes and import chunks all fit; a length above it is refused before anything is allocated. */
export const MESSAGE_MAX_BYTES = 16 * 1024 * 1024;

export const TAG = {
  authentication: 0x52, // R
  backendKey: 0x4b, // K
  bind: 0x42, // B
  bindComplete: 0x32, // 2
  close: 0x43, // C (frontend)
  closeComplete: 0x33, // 3
  commandComplete: 0x43, // C (backend)
  copyBoth: 0x57, // W
  copyData: 0x64, // d
  copyDone: 0x63, // c
  copyFail: 0x66, // f
  copyIn: 0x47, // G
  copyOut: 0x48, // H (backend)
  dataRow: 0x44, // D (backend)
  describe: 0x44, // D (frontend)
  emptyQuery: 0x49, // I
  error: 0x45, // E (backend)
  execute: 0x45, // E (frontend)
  flush: 0x48, // H (frontend)
  functionCall: 0x46, // F
  negotiate: 0x76, // v
  noData: 0x6e, // n
  notice: 0x4e, // N
  notification: 0x41, // A
  parameterStatus: 0x53, // S (backend)
  parameterDescription: 0x74, // t
  parse: 0x50, // P
  parseComplete: 0x31, // 1
  password: 0x70, // p, SASL answers too
  portalSuspended: 0x73, // s
  query: 0x51, // Q
  ready: 0x5a, // Z
  rowDescription: 0x54, // T
  sync: 0x53, // S (frontend)
  terminate: 0x58, // X
} as const;

export const AUTH = { ok: 0, cleartext: 3, md5: 5, sasl: 10, saslContinue: 11, saslFinal: 12 } as const;

/** A tag as people write it: `Q`, or `0x07` when it is no letter. */
export function tagName(tag: number): string {
  return tag > 0x20 && tag < 0x7f ? String.fromCharCode(tag) : `0x${tag.toString(16).padStart(2, "0")}`;
}
