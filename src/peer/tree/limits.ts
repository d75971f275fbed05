/** Bounds of function trees. */

/** Members of one tree: as many as a cluster may have. */
export const TREE_MEMBERS_MAX = 16_384;
/** Zones of one tree; the root feeds the first member of each. */
export const TREE_ZONES_MAX = 64;
/**
 * Members between a reader and the root that a request may pass: the depth of a full tree of
 * TREE_MEMBERS_MAX, and of a second one below it while two trees merge.
 */
export const TREE_DEPTH_MAX = 32;
