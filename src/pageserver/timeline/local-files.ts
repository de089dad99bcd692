/** What a timeline's directory holds after a restart: layers that index_part names stay, all else is removed. */
import { isStrataError } from "../../kit/errors.ts";
import type { FileSystem } from "../../platform/files.ts";
import type { Platform } from "../../platform/platform.ts";
import { layerNameToString, parseLocalLayerFileName } from "../layers/layer-name.ts";
import { Pacer } from "../layers/pacer.ts";
import type { IndexPart } from "../remote-timeline/index-part.ts";

/**
 * Returns the names of layers whose file is there with the right generation and size. Others are from uploads that
 * never came to an index (their WAL will come again), unfinished, or spilled memory. Content is checked when read.
 */
export async function reconcileLocalFiles({ files, clock }: Pick<Platform, "files" | "clock">, directory: string, index: IndexPart): Promise<{ resident: ReadonlySet<string> }> {
  const resident = new Set<string>();
  const pacer = new Pacer(clock);
  for (const fileName of await listOrNone(files, directory)) {
    const parsed = parseLocalLayerFileName(fileName);
    const known = parsed === null ? undefined : index.layers.get(layerNameToString(parsed.name));
    const matches = known !== undefined && known.metadata.generation === parsed?.generation;
    if (matches && (await files.stat(`${directory}/${fileName}`)).sizeBytes === known.metadata.sizeBytes) resident.add(layerNameToString(known.name));
    else await files.remove(`${directory}/${fileName}`);
    const pause = pacer.pause();
    if (pause !== undefined) await pause;
  }
  return { resident };
}

/** A timeline without files has no directory. */
async function listOrNone(files: FileSystem, directory: string): Promise<string[]> {
  try {
    return await files.list(directory);
  } catch (error) {
    if (isStrataError(error, "file-not-found")) return [];
    throw error;
  }
}
