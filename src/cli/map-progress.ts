/** How the making of an image's maps is shown. */
import type { EnsureProgress } from "../daemon/index.ts";
import type { ProgressState } from "./progress.ts";

export function mapProgressState(progress: EnsureProgress): ProgressState {
  const { phase, doneBytes, totalBytes, layersDone, layers } = progress;
  const isMapping = phase === "map";
  const label = isMapping ? `mapping layers ${layersDone}/${layers}` : "looking up the image";
  return { label, doneBytes, totalBytes };
}
