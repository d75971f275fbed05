/** Bounds of the disk cache, each with its unit and reason. */

const MIB = 1024 * 1024;

/** Allocation unit that accounting assumes: ext4, xfs, btrfs and tmpfs on 4 KiB pages. */
export const ALLOCATION_BYTES = 4096;
/** Blocks of one layer (a table of 1.7 GB would come first). */
export const LAYER_BLOCKS_MAX = 2 ** 24;
/** Layers in the cache, used or not. */
export const LAYERS_MAX = 65_536;
/**
 * How long a block stays after it was announced to a reader. The reader's process hears of it on
 * the same connection that later tells it to drop the block; this keeps the two far apart.
 */
export const HOLD_MS = 3000;
/** Bytes evicted in one go at least (of small quotas: their fiftieth). */
export const EVICTION_BATCH_BYTES = 16 * MIB;
/** Eviction starts this far ahead of the quota (of small quotas: a twentieth). */
export const EVICTION_HEADROOM_BYTES = 64 * MIB;
/** Entries that one search for victims passes over because they are held or pinned. */
export const EVICTION_SKIPPED_MAX = 4096;
/** How long a failed eviction (the keeper is away) keeps others from trying. */
export const EVICTION_RETRY_MS = 1000;
/** Whether the cache takes blocks is said in the log at most this often. */
export const SAID_AGE_MS = 30_000;
/** Written blocks wait this long for the next fdatasync, together. */
export const FLUSH_DELAY_MS = 1000;
/** How old a free-space figure of the file system may be, and how many bytes are written on it. */
export const FREE_SPACE_AGE_MS = 1000;
export const FREE_SPACE_AGE_BYTES = 32 * MIB;
/** Layers' times of last use are written at most this often. */
export const USE_TIME_AGE_MS = 60_000;
/** A layer with more than this on disk beyond its known blocks is swept. */
export const ORPHAN_SLACK_BYTES = 2 * MIB;
export const SWEEP_RETRY_MS = 5000;
/** Ranges in one report of reads. */
export const TOUCHED_RANGES_MAX = 65_536;
/** Blob bytes of a gzip or zstd layer times this is reserved for its tar while it is filled. */
export const FILL_RATIO_ESTIMATE = 4;
/** A pass that makes a map may push out at most this part of the quota. */
export const FILL_QUOTA_SHARE = 0.25;
/** The same for the blobs that it reads: they push out other blob bytes only. */
export const BLOB_FILL_QUOTA_SHARE = 0.25;
/** Bytes gathered before a write by a filling pass. */
export const FILL_WRITE_BYTES = MIB;
/** One window of the background fill, blob bytes. */
export const FILL_WINDOW_BYTES = 8 * MIB;
/** Absent blocks swept at a time: their writers wait meanwhile. */
export const SWEEP_BLOCKS_MAX = 256;
/** Rounds of `clear` that wait for blocks in use. */
export const CLEAR_ROUNDS_MAX = 4;
