/** FUSE sessions: our own inode-based interface on top of fuse-native. */
export { EINVAL, EIO, EISDIR, ENODATA, ENOENT, ENOTDIR, Errno } from "./errno.ts";
export type {
  FuseAttributes,
  FuseDirEntry,
  FuseFile,
  FuseFileSystem,
  FuseStatfs,
  Reply,
} from "./file-system.ts";
export { FUSE_FS_TYPE } from "./mount-options.ts";
export { FuseSession, requireFuse } from "./session.ts";
