/**
 * Limits on what one layer may ask of us. A layer's bytes are hostile until its map is made;
 * each limit is checked before anything of that size is allocated.
 */

/** Source: Linux PATH_MAX. */
export const TAR_PATH_BYTES_MAX = 4096;
/** Source: Linux NAME_MAX. */
export const TAR_NAME_BYTES_MAX = 255;
/** No path within TAR_PATH_BYTES_MAX is deeper. */
export const TREE_DEPTH_MAX = TAR_PATH_BYTES_MAX / 2;
/** Symlinks followed for one path. Source: continuity fs/path.go, which containerd unpacks with. */
export const SYMLINKS_WALKED_MAX = 255;

/** One pax header, GNU long name or GNU sparse map. Source: Go archive/tar maxSpecialFileSize. */
export const TAR_META_BYTES_MAX = 1024 * 1024;
/** Segments of one sparse file; a map of TAR_META_BYTES_MAX cannot hold more. */
export const SPARSE_SEGMENTS_MAX = 262_144;

/** Source: Linux XATTR_NAME_MAX. */
export const XATTR_NAME_BYTES_MAX = 255;
/** Linux XATTR_SIZE_MAX is one more, which EROFS has no room for: its lengths have 16 bits. */
export const XATTR_VALUE_BYTES_MAX = 65_535;
/** Names of one inode, each with its NUL. Source: Linux XATTR_LIST_MAX. */
export const XATTR_LIST_BYTES_MAX = 65_536;

/**
 * Entries of one layer; the largest known images have about a million files. A million costs the
 * map job 0.8 GB (measured), and its heap ends at 2 GiB.
 */
export const LAYER_ENTRIES_MAX = 1_500_000;
/** Folders that a layer's paths only name: one entry can name 2,000, at 1.5 KB each. */
export const LAYER_FOLDERS_MADE_MAX = 262_144;
/** Steps from folder to folder on the ways to all entries; a long way through symlinks has many. */
export const LAYER_STEPS_MAX = 2 ** 26;
/** Paths, link targets, extension headers and chunks of sparse files of one layer together. */
export const LAYER_METADATA_BYTES_MAX = 512 * 1024 * 1024;

/**
 * One layer's uncompressed tar, unless the caller asks for less: what a bomb can cost in time. It
 * costs no disk beyond the cache's quota. No registry takes layers of more than 52 GB (ECR).
 */
export const LAYER_TAR_BYTES_DEFAULT_MAX = 256 * 1024 ** 3;

/** Largest device number that mknod(2) keeps. Source: Linux kdev_t.h, MINORBITS = 20. */
export const RDEV_MAJOR_MAX = 0xfff;
export const RDEV_MINOR_MAX = 0xf_ffff;
/** (uid_t)-1 means "leave it" to chown(2) and is no owner. */
export const OWNER_ID_MAX = 0xffff_fffe;
