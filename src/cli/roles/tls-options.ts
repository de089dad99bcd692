/** Options of a role's certificate, under the peer's names. */
import { join } from "node:path";
import { DEFAULT_RELOAD_PERIOD_MS, type TlsFiles } from "../../http/credentials.ts";
import { parseDuration } from "../../kit/humantime.ts";
import { option, type OptionValues } from "../options/option-table.ts";
import { text } from "../options/parsers.ts";

export const TLS_OPTIONS = {
  sslKeyFile: option({ flag: "--ssl-key-file <path>", help: "private key of the certificate", parse: text, default: "server.key" }),
  sslCertFile: option({ flag: "--ssl-cert-file <path>", help: "certificate, for TLS", parse: text, default: "server.crt" }),
  sslCertReloadPeriod: option({ flag: "--ssl-cert-reload-period <duration>", help: "between looks at key and certificate, and at the keys of tokens; SIGHUP looks at once", parse: parseDuration, default: DEFAULT_RELOAD_PERIOD_MS }),
};

/** @param directory where relative paths begin; the current one unless given */
export function tlsFiles(values: OptionValues<typeof TLS_OPTIONS>, directory?: string): TlsFiles {
  const at = (path: string): string => (directory === undefined || path.startsWith("/") ? path : join(directory, path));
  return { certPath: at(values.sslCertFile), keyPath: at(values.sslKeyFile), reloadPeriodMs: values.sslCertReloadPeriod };
}
