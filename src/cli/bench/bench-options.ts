/** Options of the load generators: the names and defaults of the peer's pagebench. */
import { parseDuration } from "../../kit/humantime.ts";
import { StrataError } from "../../kit/errors.ts";
import { option } from "../options/option-table.ts";
import { integer, optionalPath, text } from "../options/parsers.ts";

function probability(value: string): number {
  const number = Number(value);
  if (value === "" || !(number >= 0 && number <= 1)) throw new StrataError("fix-input", "usage", `"${value}" is not a probability from 0 to 1`);
  return number;
}

export const LOAD_OPTIONS = {
  mgmtApiEndpoint: option({ flag: "--mgmt-api-endpoint <url>", help: "the pageserver's HTTP API", parse: text, default: "http://localhost:9898" }),
  pageServiceConnstring: option({ flag: "--page-service-connstring <url>", help: "the pageserver's libpq port", parse: text, default: "postgres://postgres@localhost:64000" }),
  pageserverJwt: option({ flag: "--pageserver-jwt <token>", help: "for both of them", parse: optionalPath, default: null }),
  numClients: option({ flag: "--num-clients <count>", help: "connections for each timeline", parse: integer(1, 10_000), default: 1 }),
  runtime: option({ flag: "--runtime <duration>", help: "how long", parse: parseDuration, default: 10_000 }),
  limitToFirstNTargets: option({ flag: "--limit-to-first-n-targets <count>", help: "of the timelines found", parse: integer(1, 1_000_000), default: null }),
  profile: option({ flag: "--profile <file>", help: "flame graph of the pageserver under this load, as SVG", parse: optionalPath, default: null }),
};

export const GETPAGE_OPTIONS = {
  ...LOAD_OPTIONS,
  perClientRate: option({ flag: "--per-client-rate <per second>", help: "of each connection; requests that are late are skipped and counted as missed", parse: integer(1, 1_000_000), default: null }),
  reqLatestProbability: option({ flag: "--req-latest-probability <p>", help: "of asking for the latest version, not for the one at the LSN the load began at", parse: probability, default: 1 }),
  queueDepth: option({ flag: "--queue-depth <count>", help: "requests in flight on each connection", parse: integer(1, 10_000), default: 1 }),
};

export const BASEBACKUP_OPTIONS = {
  ...LOAD_OPTIONS,
  gzipProbability: option({ flag: "--gzip-probability <p>", help: "of asking for a compressed one", parse: probability, default: 1 }),
};
