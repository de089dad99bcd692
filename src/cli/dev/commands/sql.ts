/** SQL on an endpoint, for machines without psql: results as psql's unaligned tuples, one row a line. */
import { resolve } from "node:path";
import { StrataError } from "../../../kit/errors.ts";
import type { Platform } from "../../../platform/platform.ts";
import { PgClient } from "../../../wire/client.ts";
import type { OptionValues } from "../../options/option-table.ts";
import { DevClient } from "../control-api.ts";
import type { SQL_OPTIONS } from "../dev-options.ts";

export async function runSql(values: OptionValues<typeof SQL_OPTIONS> & { endpoint: string }, platform: Platform): Promise<number> {
  const { cluster } = await DevClient.of(resolve(values.dir), platform);
  const endpoint = cluster.endpoints.find((one) => one.name === values.endpoint);
  if (endpoint === undefined) throw new StrataError("not-found", "endpoint-not-found", `there is no endpoint "${values.endpoint}" (start one with: strata dev endpoint start ${values.endpoint})`);
  const client = await PgClient.connect(platform.network, {
    address: { host: "127.0.0.1", port: endpoint.pgPort },
    parameters: { user: "postgres", database: values.database, application_name: "strata dev sql" },
    clock: platform.clock,
    random: platform.random,
    onNotice: (notice) => void process.stderr.write(`${notice.severity}:  ${notice.message}\n`),
  });
  try {
    const sql = values.command ?? (await Bun.stdin.text());
    const { columns, rows, tag } = await client.query(sql);
    for (const row of rows) console.log(row.map((value) => value ?? "").join("|"));
    if (columns.length === 0) console.log(tag);
  } finally {
    await client.close();
  }
  return 0;
}
