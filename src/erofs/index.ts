/** EROFS metadata images: writer and reader of the on-disk format; knows no OCI. */
export {
  EROFS_BLOCK_BYTES,
  FILE_TYPE,
  FILE_TYPE_MASK,
  IMAGE_BYTES_MAX,
  isDirectoryMode,
} from "./format.ts";
export type { ErofsDirent } from "./parse-directory.ts";
export type { ErofsInode } from "./parse-inode.ts";
export { piecesOf, type DataPiece } from "./pieces.ts";
export { ErofsFileReader, ErofsReader, type InodeRef } from "./reader.ts";
export { PagedFile, type ByteRange, type RandomAccess } from "./source.ts";
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
export { writeErofs, type ErofsDevice, type WriteErofsOptions } from "./writer.ts";
