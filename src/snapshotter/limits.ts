/** The module's limits, each with its unit and its reason. */

/** Source: containerd `defaults.DefaultMaxRecvMsgSize`: both ends of its API use 16 MiB. */
export const GRPC_MESSAGE_BYTES_MAX = 16 * 1024 * 1024;
/** Source: containerd `labels.Validate`: a key and its value together. */
export const LABEL_BYTES_MAX = 4096;
export const LABELS_PER_SNAPSHOT_MAX = 256;
/** A snapshot's key or name, in UTF-8 bytes; containerd's own bbolt keys end at 32,768. */
export const KEY_BYTES_MAX = 8192;
/** Source: containerd's reference server sends List results in blocks of this many. */
export const LIST_BLOCK_SNAPSHOTS = 100;
export const FILTERS_MAX = 64;
export const FILTER_CHARS_MAX = 16 * 1024;
/** overlayfs takes at most 500 lower layers (fs/overlayfs/params.h, OVL_MAX_STACK). */
export const LOWER_LAYERS_MAX = 500;

/** One journal frame: a transaction is a few kilobytes, a chunk of a compaction about 1 MiB. */
export const FRAME_PAYLOAD_BYTES_MAX = 32 * 1024 * 1024;
/** Transactions that share one frame, together, in bytes. */
export const GROUP_BYTES_MAX = 8 * 1024 * 1024;
/** A journal above this is not ours: compaction keeps it near the size of the live state. */
export const JOURNAL_BYTES_MAX = 1024 * 1024 * 1024;
/** Below this a journal is never compacted, in bytes. */
export const COMPACT_BYTES_MIN = 1024 * 1024;
/** A journal is compacted when it is this many times its size after the last compaction. */
export const COMPACT_GROWTH = 4;
/** Payload of one frame of a compacted journal, in bytes, before the next one is begun. */
export const COMPACT_FRAME_BYTES = 1024 * 1024;

/** Snapshots whose disk usage is counted at once. */
export const USAGE_SCANS_MAX = 2;
export const USAGE_SCAN_QUEUE_MAX = 10_000;
/** lstat calls under way for one scan; libuv's pool has 4 threads. */
export const SCAN_STATS_MAX = 16;

/** One call to containerd's API, in milliseconds; its own work there takes a few. */
export const CONTAINERD_CALL_MS = 10_000;
/** Asking containerd who it is delays the first Prepare by at most this, in milliseconds. */
export const CONTAINERD_IDENTITY_MS = 2000;
/** A Prepare waits this long, in milliseconds, for an image's maps; then the layer is ordinary. */
export const ENSURE_WAIT_MS = 15 * 60 * 1000;
/** Manifests of one namespace that are searched for a chain ID. */
export const MANIFESTS_MAX = 4096;
/** Source: OCI distribution-spec v1.1: registries should refuse manifests over 4 MiB. */
export const MANIFEST_BYTES_MAX = 4 * 1024 * 1024;
export const CONFIG_BYTES_MAX = 8 * 1024 * 1024;
/** Manifests whose chain IDs are remembered between calls. */
export const MANIFEST_MEMORY = 1024;
/** Different manifests that are tried for one chain ID. */
export const MANIFEST_TRIES_MAX = 3;
/** host[:port]/repository candidates handed to the provider for one image. */
export const SOURCE_CANDIDATES_MAX = 16;
export const IMAGE_RECORDS_MAX = 20_000;
export const NAMESPACES_MAX = 256;
/** Images that fell through and are remembered so that their upper layers are not tried. */
export const DECLINED_IMAGES_MAX = 256;
/** How long such an image is remembered after its last layer was asked for, in milliseconds. */
export const DECLINED_IMAGE_MS = 10 * 60 * 1000;
/** How long the snapshots of another containerd are kept before they are deleted: a day. */
export const SET_ASIDE_KEPT_MS = 24 * 60 * 60 * 1000;
/** Calls under way at a stop may end for this long, in milliseconds. */
export const SHUTDOWN_GRACE_MS = 2000;
/** An error's text travels in an HTTP/2 header. */
export const STATUS_MESSAGE_CHARS_MAX = 2048;
