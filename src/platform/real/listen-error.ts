/** Why an address cannot be listened on, in words; the runtime's own leave out what is wrong with it. */
import { StrataError } from "../../kit/errors.ts";

const REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: "it is in use by another process",
  EADDRNOTAVAIL: "this machine has no such address",
  EACCES: "not permitted (ports below 1024 need a privilege)",
};

/** conflict `port-in-use`; fix-input `cannot-listen` for anything else. */
export function listenError(address: { readonly host: string; readonly port: number }, cause: unknown): StrataError {
  const system = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const { host, port } = address;
  const message = `cannot listen on ${host}:${port}${REASONS[system] === undefined ? "" : `: ${REASONS[system]}`}`;
  return system === "EADDRINUSE" ? new StrataError("conflict", "port-in-use", message, { cause }) : new StrataError("fix-input", "cannot-listen", message, { cause });
}
