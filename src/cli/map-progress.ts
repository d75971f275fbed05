/** How the making of an image's maps is shown. */
import type { MapProgress } from "./daemon-api.ts";
import type { ProgressState } from "./progress.ts";

export function mapProgressState(progress: MapProgress): ProgressState {
  const { phase, doneBytes, totalBytes, layersDone, layers } = progress;
  const label =
    phase === "map"
      ? `mapping layers ${layersDone}/${layers}`
      : phase === "resolve"
        ? "looking up the image"
        : phase;
  return { label, doneBytes, totalBytes };
}
