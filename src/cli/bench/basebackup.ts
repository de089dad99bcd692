/** Base backups at the LSN the load began at, one after the other on each connection. */
import { lsnToString } from "../../kit/lsn.ts";
import type { Platform } from "../../platform/platform.ts";
import type { OptionValues } from "../options/option-table.ts";
import type { BASEBACKUP_OPTIONS } from "./bench-options.ts";
import type { LoadClient } from "./load.ts";
import type { PageserverUnderLoad, Target } from "./targets.ts";

export function baseBackupClients(targets: readonly Target[], options: OptionValues<typeof BASEBACKUP_OPTIONS>, tools: { readonly pageserver: PageserverUnderLoad; readonly platform: Platform }): LoadClient[] {
  const { clock, random } = tools.platform;
  const client = (target: Target): LoadClient => async (recorder, stop) =>
    await tools.pageserver.whileConnected(stop, async (connection) => {
      while (!stop.aborted) {
        const startMs = clock.monotonicMs();
        const gzip = options.gzipProbability > random.float() ? " --gzip" : "";
        const stream = await connection.copyOut(`basebackup ${target.tenantId} ${target.timelineId} ${lsnToString(target.lsn)}${gzip}`);
        while ((await stream.read()) !== null);
        await stream.finish();
        recorder.observe(clock.monotonicMs() - startMs);
      }
    });
  return targets.flatMap((target) => Array.from({ length: options.numClients }, () => client(target)));
}
