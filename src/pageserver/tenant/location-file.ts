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
import type { FileSystem } from "../../platform/files.ts";
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
