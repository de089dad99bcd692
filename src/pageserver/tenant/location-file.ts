/**
 * The local copy of a tenant shard's location configuration, `tenants/<shard>/config-v1`, TOML. It is what a pageserver
 * knows at start when the control plane does not say otherwise.
 *
 * | key | content |
 * | --- | --- |
 * | mode | as in the HTTP API |
 * | generation | absent when not attached |
 * | shard_number, shard_count, shard_stripe_size | |
 * | [tenant_conf] | the tenant's configuration |
 */
import { parse, stringify } from "smol-toml";
import { utf8, utf8ToString } from "../../kit/bytes.ts";
import { isStrataError, StrataError } from "../../kit/errors.ts";
import { parseTenantShardId, tenantShardIdToString } from "../../kit/ids.ts";
import type { Logger } from "../../observability/log.ts";
import type { FileSystem } from "../../platform/files.ts";
import type { Platform } from "../../platform/platform.ts";
import { type LocationConfig, locationConfigSchema } from "../api/location.ts";

const NAME = "config-v1";

/** Durable when it returns. */
export async function writeLocationFile(files: FileSystem, directory: string, location: LocationConfig): Promise<void> {
  await files.makeDirectory(directory);
  const { generation, secondary_conf: secondary, ...rest } = location;
  const present = Object.fromEntries(Object.entries(location.tenant_conf).filter(([, value]) => value !== null && value !== undefined));
  const document = { ...rest, ...(generation === null ? {} : { generation }), ...(secondary === null ? {} : { secondary_conf: secondary }), tenant_conf: present };
  const temporary = `${directory}/${NAME}.temp`;
  const file = await files.open(temporary, "truncate");
  await file.write(utf8(stringify(document)), 0);
  await file.sync();
  await file.close();
  await files.rename(temporary, `${directory}/${NAME}`);
  await files.syncDirectory(directory);
  await files.syncDirectory(directory.slice(0, directory.lastIndexOf("/")));
}

/** Null when there is none. @throws StrataError corrupt `bad-location-file` */
export async function readLocationFile(files: FileSystem, directory: string): Promise<LocationConfig | null> {
  const path = `${directory}/${NAME}`;
  let text: string;
  try {
    text = utf8ToString(await files.readFile(path));
  } catch (error) {
    if (isStrataError(error, "file-not-found")) return null;
    throw error;
  }
  try {
    return locationConfigSchema.parse(parse(text));
  } catch (cause) {
    throw new StrataError("corrupt", "bad-location-file", `${path} is not a location configuration`, { cause });
  }
}

/** Locations on the local disk, by shard. A damaged one is logged and left alone. */
export async function readLocalLocations(context: { readonly platform: Platform; readonly log: Logger }, workDirectory: string): Promise<Map<string, LocationConfig>> {
  const { files } = context.platform;
  const found = new Map<string, LocationConfig>();
  const directory = `${workDirectory}/tenants`;
  if (!(await files.exists(directory))) return found;
  for (const name of await files.list(directory)) {
    try {
      const id = tenantShardIdToString(parseTenantShardId(name));
      const location = await readLocationFile(files, `${directory}/${id}`);
      if (location !== null) found.set(id, location);
    } catch (error) {
      context.log.error("a tenant's directory cannot be read", { directory: name, error });
    }
  }
  return found;
}
