/**
 * The marks with which a layer's own (unmerged) metadata speaks to the merge, which defines them.
 * All lie under overlayfs's own prefix, so that they are never shown to anybody.
 */
export {
  IMPLICIT,
  IMPLICIT_ROOT_XATTR,
  IMPLICIT_XATTR,
  isMark,
  OPAQUE_XATTR,
} from "./merge/index.ts";

/** The value of those that have but one. */
export const MARK_VALUE: Uint8Array = Buffer.from("y");
