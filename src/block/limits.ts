/** Bounds of the read path, each with its unit and reason. */

const MIB = 1024 * 1024;

/** Blob bytes in one request while a reader waits: one round trip's worth at 1 Gbit/s and 30 ms. */
export const READER_RUN_BYTES_MAX = 4 * MIB;
/** Blob bytes in one request of prefetch or fill: fewer requests, nobody waits for the first. */
export const BULK_RUN_BYTES_MAX = 8 * MIB;
/** Blob bytes between two blocks (member headers, skippable frames) that a run reads and drops. */
export const RUN_GAP_BYTES_MAX = 64 * 1024;

/**
 * Requests with bytes flowing to one origin, by the priority of the newcomer: the lower classes
 * stop earlier, so that a reader always finds a slot (64 parallel bulk ranges put a reader's p50
 * at 380 ms, two at 17 ms).
 */
export const ORIGIN_ACTIVE_MAX = [16, 8, 4, 2] as const;
/** Requests to one origin that have gone silent; they hold no slot, only a socket and a buffer. */
export const ORIGIN_PARKED_MAX = 128;
/** Requests of one layer to one source, silent ones too: one image cannot take every slot. */
export const LAYER_RUNS_MAX = [4, 3, 2, 1] as const;
/**
 * Requests of one layer to one source that give signs of life but no bytes (a parent that itself
 * waits), beyond those above, by the priority of the newcomer: what the source holds must not wait
 * behind what it awaits.
 */
export const LAYER_WAITING_MAX = [16, 8, 2, 0] as const;
/** Blob bytes of all requests with bytes flowing; one request alone may be larger. */
export const ACTIVE_BYTES_MAX = 64 * MIB;

/** Blocks waiting or being fetched, readers' (the control connection allows 4096 calls). */
export const FLIGHTS_MAX = 16_384;
/** The same, for read-ahead and prefetch, which are dropped rather than queued further. */
export const AHEAD_FLIGHTS_MAX = 4096;

/** Finished blocks of one request that wait for decoding and disk before it reads on. */
export const RUN_FINISHING_MAX = 2;
/** Blocks being decoded at once (libuv's default pool has four threads). */
export const DECODES_MAX = 4;

/** Tries of one block at one source that sends wrong bytes. */
export const CORRUPT_TRIES_MAX = 2;
/** How long a source's refusal (not found, denied) of a layer answers for it. */
export const REFUSAL_MS = 2000;
/** How long a source that has passed on a block is not asked for it again. */
export const SOURCE_PASS_MS = 500;
/** How soon a layer without any source, or with none that is ready, asks again. */
export const NO_SOURCE_POLL_MS = 500;

/** Bytes of one `ensure`: FUSE reads are at most 1 MiB; a map may ask for more. */
export const ENSURE_BYTES_MAX = 16 * MIB;
/** Rounds of `ensure` when blocks are evicted as fast as they come. */
export const ENSURE_ROUNDS_MAX = 8;
/** Blocks of one call: tables cut blocks of about 1 MiB, a table of crumbs is hostile. */
export const CALL_BLOCKS_MAX = 1024;

/** Blocks of one list to prefetch. */
export const PREFETCH_LIST_MAX = 65_536;
/** Blocks of one list that are queued at once, so that many lists leave room for each other. */
export const PREFETCH_WINDOW_BLOCKS = 64;
/** Blocks whose order of first use is remembered, per layer: what a start reads is far less. */
export const FETCH_ORDER_BLOCKS_MAX = 16_384;

/** Largest piece of a block that is given to another node at once. */
export const RELAY_PIECE_BYTES_MAX = 128 * 1024;
/**
 * Blob bytes of blocks that are open for other nodes, by the priority of the newcomer; a block
 * counts once, however many read it.
 */
export const RELAY_BYTES_MAX = [64 * MIB, 64 * MIB, 32 * MIB, 16 * MIB] as const;
/** Verified blob bytes kept in memory for children who come a moment later; 0 without a tree. */
export const RELAY_MEMORY_BYTES = 16 * MIB;
/** Blocks of one layer that one child has asked for so far: the second who asks has them kept. */
export const ASKED_BLOCKS_MAX = 65_536;

/** Bytes hashed at once: not worth a turn of the event loop (about 0.05 ms). */
export const HASH_SMALL_BYTES = 64 * 1024;
/** Bytes hashed before other work gets its turn (about 0.7 ms a MiB). */
export const HASH_SLICE_BYTES = MIB;
/** Sequential readers followed per layer. */
export const READ_STREAMS_MAX = 8;
/** Names kept in a layer's counters. */
export const COUNTED_SOURCES_MAX = 16;
