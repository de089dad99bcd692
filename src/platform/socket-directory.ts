/** A directory for the server's Unix socket: beside its data when the path is short enough and open to it, else a temporary one. */
import { platformTemporaryDirectory } from "./temporary-directory.ts";
import { type PostgresUser, canReach, giveTo } from "./postgres-binaries.ts";
import type { Platform } from "./platform.ts";

export interface SocketDirectory {
  readonly path: string;
  remove(): Promise<void>;
}

/** sun_path holds 108 bytes; `.s.PGSQL.NNNNN.lock` is added to the directory. */
const MAX_PATH_BYTES = 107 - "/.s.PGSQL.65535.lock".length;

export async function makeSocketDirectory(platform: Platform, dataDirectory: string, user: PostgresUser | null): Promise<SocketDirectory> {
  const beside = `${dataDirectory}/socket`;
  const usable = Buffer.byteLength(beside) <= MAX_PATH_BYTES && (await canReach(user, beside));
  const path = usable ? beside : `${platformTemporaryDirectory()}/strata-${platform.random.bytes(8).toHex()}`;
  await platform.files.makeDirectory(path);
  await giveTo(user, path);
  return { path, remove: () => platform.files.removeTree(path) };
}
