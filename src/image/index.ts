/** The door of `image`: from layer blobs to layer maps, and from layer maps to merged metadata. */
export { mergeLayers } from "./merge/index.ts";
export { encodeImageMap, parseImageMap, type ImageMap } from "./image-map.ts";
export { LayerMap, openLayerMap } from "./layer-map/layer-map.ts";
export { unfinishedMapPath } from "./layer-map/writer.ts";
export { makeLayerMap, type LayerMapSink, type MadeLayerMap } from "./make-layer-map.ts";
export { selfTestGzipResume } from "./pass/self-test.ts";
