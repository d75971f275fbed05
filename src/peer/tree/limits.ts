/** Bounds of function trees, and what happens beyond each. */

/** Members of one tree: as many as a cluster may have. Beyond: a join is refused, see `refused`. */
export const TREE_MEMBERS_MAX = 16_384;
/** Zones of one tree; the root feeds the first member of each. Beyond: a join is refused. */
export const TREE_ZONES_MAX = 64;
/**
 * Members between a reader and the root that a request may pass: the depth of a full tree of
 * TREE_MEMBERS_MAX, and of a second one below it while two trees merge.
 */
export const TREE_DEPTH_MAX = 32;
/** Trees that one member manages or shadows. Beyond: a join is refused. */
export const OFFICES_MAX = 4096;
/** Members of all trees that one member manages or shadows. Beyond: a join is refused. */
export const RECORDS_MAX = 262_144;
/** Images that one member is in a tree of. Beyond: `join` throws `resource-exhausted`. */
export const SEATS_MAX = 1024;
/** UTF-8 bytes of a zone's name; it is part of member metadata. */
export const ZONE_BYTES_MAX = 64;
/** Times that a join or heartbeat is passed on. Beyond: dropped; its sender asks another. */
export const HOPS_MAX = 4;
/** Joins of one boot that are taken up per second, and at once. Beyond: dropped. */
export const JOINS_PER_SECOND = 100;
export const JOINS_BURST = 400;
/** Boots whose joins are counted; those unheard longest are forgotten. */
export const JOINERS_MAX = 32_768;
/** Members that are being pinged at once. Beyond: not pinged now, asked again at the next tick. */
export const CHECKS_MAX = 1024;
/** Members remembered as silent. Beyond: the oldest is believed to be well again. */
export const SILENT_MAX = 4096;
/** Managers that were heard of, by image. Beyond: the oldest is forgotten. */
export const HINTS_MAX = 4096;
/** Complaints that one tree's manager remembers. Beyond: the oldest is forgotten. */
export const COMPLAINTS_MAX = 1024;
/** Complaints of one member that wait for being sent. Beyond: the oldest is dropped. */
export const COMPLAINTS_WAITING_MAX = 64;
/** Token requests of one member that wait for an answer. Beyond: refused at once. */
export const TOKENS_WAITING_MAX = 256;
/** Bytes of one token request. Beyond: refused. */
export const TOKEN_BYTES_MAX = 64 * 1024 * 1024;
/** Members that ask to read the registry in their root's place. Beyond: the oldest is forgotten. */
export const ROOT_ASKERS_MAX = 1024;
/** Leaves that are looked at for one that may be interior, or is quick. */
export const LEAVES_TRIED_MAX = 64;
/** Members to whom a new root is told at once; more hear of it at their next heartbeat. */
export const PUSH_ALL_MAX = 256;
/** Times that a position is pushed before the member's heartbeats are waited for. */
export const PUSHES_MAX = 8;
/** Messages to this member itself that one step handles: far above any real chain. */
export const LOOPBACK_MAX = 65_536;
/** Epochs count changes of shape: a counter beyond this is nonsense, its message is dropped. */
export const EPOCH_COUNTER_MAX = 2 ** 48 - 1;
