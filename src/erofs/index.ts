/** EROFS metadata images: writer and reader of the on-disk format; knows no OCI. */
export { planChunks } from "./chunks.ts";
export {
  CHUNK_INDEX_BYTES,
  EROFS_BLOCK_BYTES,
  FILE_TYPE,
  FILE_TYPE_MASK,
  IMAGE_BYTES_MAX,
  isDirectoryMode,
} from "./format.ts";
export type { ErofsDirent } from "./parse-directory.ts";
export type { ErofsInode } from "./parse-inode.ts";
export { piecesOf } from "./pieces.ts";
export { ErofsReader } from "./reader.ts";
export {
  defaultDirectory,
  ErofsInodeInput,
  NO_DATA,
  NO_XATTRS,
  symlinkData,
  type ErofsAttributes,
  type ErofsData,
  type ErofsExtent,
} from "./tree.ts";
export { writeErofs } from "./writer.ts";
