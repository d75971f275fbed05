/** Layers of metadata merged as overlayfs would show them. */
export { IMPLICIT, IMPLICIT_ROOT_XATTR, IMPLICIT_XATTR, isMark, OPAQUE_XATTR } from "./marks.ts";
export { MERGE_ITEMS_MAX, MERGE_LOOKUPS_MAX, MERGE_XATTR_BYTES_MAX } from "./layer-source.ts";
export { MERGE_DEPTH_MAX, MERGE_LAYERS_MAX, mergeLayers } from "./merge.ts";
