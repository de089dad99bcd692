/** System errors as ours, with the path and what was being done. */
import { type ErrorKind, StrataError } from "../../kit/errors.ts";

const KNOWN: Readonly<Record<string, readonly [ErrorKind, string]>> = {
  ENOENT: ["not-found", "file-not-found"],
  ENOTDIR: ["not-found", "file-not-found"],
  EEXIST: ["conflict", "file-exists"],
  ENOTEMPTY: ["conflict", "file-exists"],
  ENOSPC: ["unavailable", "disk-full"],
  EDQUOT: ["unavailable", "disk-full"],
};

export function fileError(cause: unknown, doing: string, path: string): StrataError {
  const system = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const [kind, code] = KNOWN[system] ?? (["unavailable", "io-error"] as const);
  return new StrataError(kind, code, `cannot ${doing} ${path}`, { cause, details: { path } });
}
