/** Bounds of the exchange; times in milliseconds, sizes in bytes. */

const KIB = 1024;
const MIB = 1024 * KIB;

/** A relay holds back this much of a block until its digest is right. */
export const HOLD_BACK_BYTES = 4 * KIB;
/** A server that waits says so this often. */
export const TICK_MS = 50;
/** Silence since the last sign of life after which the next one up the tree is asked too. */
export const HEDGE_MS = 100;
/** How often a reader that is kept waiting by ticks learns that its source lives. */
export const LIFE_MS = 250;
/** How often a reader whose peers are all silent sees whether it may read the registry. */
export const LEAVE_POLL_MS = 20;
/** A peer that gives no sign of life for this long is given up, whatever else is under way. */
export const SILENCE_MS = 10_000;
/** A member that sent wrong bytes is not asked for this long. */
export const CONVICTION_MS = 10 * 60_000;
/** A peer that failed or was silent is asked last for this long, doubling. */
export const COOLDOWN_MS = 1000;
export const COOLDOWN_MS_MAX = 30_000;

/** Members that a request may have passed: a complete binary tree of 2^20 is 20 deep, zones add. */
export const PATH_MEMBERS_MAX = 32;
/** Blocks in one request. */
export const REQUEST_BLOCKS_MAX = 1024;
/** JSON of a request for blocks: 1,024 blocks of 50 characters, and a path. */
export const REQUEST_BYTES_MAX = 128 * KIB;
/** Characters of a request's target (path and query). */
export const TARGET_CHARS_MAX = 16 * KIB;
export const HEADER_BYTES_MAX = 32 * KIB;
/** Push/pull: 16,384 members of about 250 bytes. */
export const VIEW_BYTES_MAX = 4 * MIB;
/** Bytes of a blob that can be one block (block table: 32 bits). */
export const BLOCK_BYTES_MAX = 2 ** 32 - 1;

/** Payload of a frame; what we send is smaller. */
export const FRAME_BYTES_MAX = MIB;
/** Bytes of a block in one frame: large enough that frames cost nothing. */
export const DATA_BYTES_MAX = 128 * KIB;
/** Entries of one frame of the fetch order. */
export const ORDER_ENTRIES_MAX = 4096;
/** Positions of a fetch order that a request may start at. */
export const ORDER_POSITION_MAX = 2 ** 31;
/** A layer map in transit. */
export const MAP_BYTES_MAX = 8 * 1024 * MIB;

/** Bytes of a block that wait for a slow child at least; two blocks where that is more. */
export const CHILD_BUFFER_BYTES_MIN = 256 * KIB;
/** …and at most. */
export const CHILD_BUFFER_BYTES_MAX = 8 * MIB;
/** Blocks of one request that are asked of the provider at once. */
export const REPLY_OPEN_MAX = 64;
/** Bytes that a reader may leave unread before its stream is held back. */
export const READER_BUFFER_BYTES_MAX = MIB;
/** Bytes of a block that go on as one piece: below them malloc needs no pages from the kernel. */
export const STREAM_PIECE_BYTES = 120 * KIB;
/** A child that takes nothing for this long is let go. */
export const CHILD_STALL_MS = 30_000;
/** A block that is asked for by this many children is fetched and kept by an interior member. */
export const CHILDREN_TO_FETCH = 2;
/** Blocks that were missing here and who asked, remembered. */
export const MISSES_MAX = 65_536;

/** Requests with bytes flowing to one peer: two for readers, two for bulk. */
export const LANE_FLOWING_MAX = 2;
/** Requests to one peer of one kind, those that are kept waiting by ticks among them. */
export const LANE_REQUESTS_MAX = 48;
/** Requests waiting for their turn. */
export const LANE_QUEUE_MAX = 4096;
/** Peers with connections at once. */
export const PEERS_MAX = 256;
/** Connections to a peer that was not used for this long are closed. */
export const PEER_IDLE_MS = 5 * 60_000;

/** Connections that are served at once, and of these from one member. */
export const SERVER_CONNECTIONS_MAX = 2048;
/** TLS handshakes under way: strangers can hold no more. */
export const HANDSHAKES_MAX = 256;
/** …from one address. */
export const HANDSHAKES_PER_ADDRESS_MAX = 64;
export const HANDSHAKE_MS = 5000;
/** A request has to have arrived in full by then. */
export const REQUEST_MS = 10_000;
/** Longer than a client keeps an idle connection (RFC 9112 9.5); Node's 5 s cuts streams. */
export const KEEP_ALIVE_MS = 150_000;
export const CLIENT_KEEP_ALIVE_MS = 120_000;
/** Streams of blocks that one child may have open, and all of them. */
export const STREAMS_PER_CHILD_MAX = 128;
export const STREAMS_MAX = 1024;
/** Bulk streams give way to a reader's for this long at most at a time. */
export const GIVE_WAY_MS = 50;
/** What the kernel holds of a connection beyond what it may send: readers' blocks wait for it. */
export const UNSENT_BYTES_MAX = 128 * KIB;
/** Members whose counters are kept. */
export const COUNTED_PEERS_MAX = 1024;
/** Waits that are known, for finding circles. */
export const WAITS_MAX = 65_536;

/** Another is asked for a document too when a member gives no sign of life for this long. */
export const DOCUMENT_HEDGE_MS = 300;
/** Without one for this long it is given up, unless whoever asks has more patience. */
export const DOCUMENT_SILENCE_MS = 300;
/** How old a tag's answer can be that travels. */
export const TAG_AGE_MS_MAX = 7 * 24 * 3600_000;

/** `/v2/`: characters of a repository name and of a tag. Source: distribution-spec v1.1. */
export const REPOSITORY_CHARS_MAX = 255;
export const MANIFEST_BYTES_MAX = 4 * MIB;
