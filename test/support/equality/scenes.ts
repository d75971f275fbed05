/**
 * The arbitrary of images. Entries that chance seldom brings together are put into two of an
 * image's layers on purpose: what a folder gets from the layers below that was only named.
 */
import fc from "fast-check";
import {
  attributesArbitrary,
  fileArbitrary,
  layerArbitrary,
  nameArbitrary,
  type Entry,
  type Image,
  type Layer,
} from "./image.ts";

const LAYERS_MAX = 5;
const SCENES_MAX = 2;

const sceneArbitrary = fc.record({
  kind: fc.constantFrom("named", "described-later", "through-symlink"),
  folder: fc.array(nameArbitrary, { minLength: 1, maxLength: 2, size: "max" }),
  link: nameArbitrary,
  isAbsolute: fc.boolean(),
  below: attributesArbitrary,
  above: attributesArbitrary,
  /** Its path goes on below the folder. */
  file: fileArbitrary,
  lower: fc.nat(LAYERS_MAX),
  distance: fc.nat(LAYERS_MAX),
});
type Scene = typeof sceneArbitrary extends fc.Arbitrary<infer T> ? T : never;

interface LayerPair {
  readonly lower: readonly Entry[];
  readonly upper: readonly Entry[];
}

function entriesOf(scene: Scene): LayerPair {
  const { kind, folder, link, file } = scene;
  const below = { ...scene.below, xattrs: [["user.below", "1"], ...scene.below.xattrs] as const };
  const described: Entry = { kind: "dir", path: folder, attributes: below };
  const child = (...parent: readonly string[]): Entry => ({
    ...file,
    path: [...parent, ...file.path],
  });
  if (kind === "named") return { lower: [described], upper: [child(...folder)] };
  if (kind === "described-later") {
    const later: Entry = { kind: "dir", path: folder, attributes: scene.above };
    return { lower: [described], upper: [child(...folder), later] };
  }
  const target = `${scene.isAbsolute ? "/" : ""}${folder.join("/")}`;
  const symlink: Entry = { kind: "symlink", path: [link], attributes: scene.above, target };
  return { lower: [described, symlink], upper: [child(link)] };
}

/** At the lower layer's end, and before all else in the upper one. */
function withScene(layers: readonly Layer[], scene: Scene): readonly Layer[] {
  if (layers.length < 2) return layers;
  const lowerIndex = scene.lower % (layers.length - 1);
  const upperIndex = lowerIndex + 1 + (scene.distance % (layers.length - 1 - lowerIndex));
  const { lower, upper } = entriesOf(scene);
  return layers.map((layer, index) => {
    if (index === lowerIndex) return { ...layer, entries: [...layer.entries, ...lower] };
    if (index === upperIndex) return { ...layer, entries: [...upper, ...layer.entries] };
    return layer;
  });
}

export const imageArbitrary: fc.Arbitrary<Image> = fc
  .record({
    layers: fc.array(layerArbitrary, { minLength: 1, maxLength: LAYERS_MAX, size: "max" }),
    isDocker: fc.boolean(),
    scenes: fc.array(sceneArbitrary, { maxLength: SCENES_MAX, size: "max" }),
  })
  .map(({ layers, scenes, isDocker }) => ({ layers: scenes.reduce(withScene, layers), isDocker }));
