/** The door of `image`: from layer blobs to layer maps, and from layer maps to merged metadata. */
export * from "./merge/index.ts";
export {
  encodeImageMap,
  IMAGE_LAYERS_MAX,
  parseImageMap,
  type ImageMap,
  type ImageMapLayer,
} from "./image-map.ts";
export type { LayerMapInfo } from "./layer-map/info.ts";
export {
  LayerMap,
  openLayerMap,
  type LayerMapSizes,
  type OpenLayerMapOptions,
} from "./layer-map/layer-map.ts";
export { LAYER_TAR_BYTES_DEFAULT_MAX } from "./limits.ts";
export {
  makeLayerMap,
  type LayerMapSink,
  type MadeLayerMap,
  type MakeLayerMapOptions,
} from "./make-layer-map.ts";
export type { LayerPassProgress } from "./pass/layer-pass.ts";
export { selfTestGzipResume } from "./pass/self-test.ts";
