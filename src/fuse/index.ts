/** FUSE sessions: our own inode-based interface on top of fuse-native. */
export { EBADF, EINVAL, EIO, EISDIR, ENODATA, ENOENT, ENOTDIR, EROFS, Errno } from "./errno.ts";
export type {
  Awaitable,
  FuseAttributes,
  FuseDirEntry,
  FuseFile,
  FuseFileSystem,
  FuseStatfs,
  Reply,
} from "./file-system.ts";
export { BACKGROUND_REQUESTS_MAX, FUSE_FS_TYPE, READ_BYTES_MAX } from "./mount-options.ts";
export type { FuseMountOptions } from "./mount-options.ts";
export { detachStale, FuseSession, READ_AHEAD_KIB, requireFuse } from "./session.ts";
export type { FuseSessionOptions } from "./session.ts";
