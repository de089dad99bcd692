/** What a timeline's directory holds after a restart: layers that index_part names stay, all else is removed. */
import type { FileSystem } from "../../platform/files.ts";
import { layerNameToString, parseLocalLayerFileName } from "../layers/layer-name.ts";
import type { IndexPart } from "../remote-timeline/index-part.ts";

/**
 * Returns the names of layers whose file is there with the right generation and size. Others are from uploads that
 * never came to an index (their WAL will come again), unfinished, or spilled memory. Content is checked when read.
 */
export async function reconcileLocalFiles(files: FileSystem, directory: string, index: IndexPart): Promise<{ resident: ReadonlySet<string> }> {
  const resident = new Set<string>();
  for (const fileName of await files.list(directory)) {
    const parsed = parseLocalLayerFileName(fileName);
    const known = parsed === null ? undefined : index.layers.get(layerNameToString(parsed.name));
    const matches = known !== undefined && known.metadata.generation === parsed?.generation;
    if (matches && (await files.stat(`${directory}/${fileName}`)).sizeBytes === known.metadata.sizeBytes) resident.add(layerNameToString(known.name));
    else await files.remove(`${directory}/${fileName}`);
  }
  return { resident };
}
