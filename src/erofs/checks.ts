/** What an inode must be to be written: every value within its field, data that fits its type. */
import { DaemonError } from "../base/errors.ts";
import { isByteString } from "./byte-strings.ts";
import {
  direntTypeOf,
  FILE_TYPE,
  FILE_TYPE_MASK,
  INLINE_DATA_BYTES_MAX,
  isDeviceMode,
  isDirectoryMode,
  SYMLINK_BYTES_MAX,
} from "./format.ts";
import type { ErofsAttributes, ErofsData, ErofsInodeInput } from "./tree.ts";

const U32_MAX = 0xffffffff;
const NSEC_MAX = 999_999_999;
/** The kernel's device number: 12 bits of major, 20 bits of minor. */
const MAJOR_MAX = 0xfff;
const MINOR_MAX = 0xfffff;

function invalid(message: string): DaemonError {
  return new DaemonError("invalid-argument", message);
}

function isWithin(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max;
}

export function timeOf(attributes: ErofsAttributes): { sec: number; nsec: number } {
  return { sec: attributes.mtimeSec, nsec: attributes.mtimeNsec };
}

export function checkInode(inode: ErofsInodeInput, nlink: number): void {
  const { attributes } = inode;
  const { mode, uid, gid, mtimeSec, mtimeNsec, rdevMajor, rdevMinor } = attributes;
  if (!isWithin(mode, 0xffff) || direntTypeOf(mode) === 0) {
    throw invalid(`mode 0${mode.toString(8)} has no known file type`);
  }
  if (isDirectoryMode(mode) !== (inode.entries !== undefined)) {
    throw invalid("an inode changed between directory and file");
  }
  if (!isWithin(uid, U32_MAX) || !isWithin(gid, U32_MAX)) throw invalid(`owner ${uid}:${gid}`);
  if (!Number.isSafeInteger(mtimeSec) || !isWithin(mtimeNsec, NSEC_MAX)) {
    throw invalid(`mtime ${mtimeSec} s ${mtimeNsec} ns`);
  }
  if (!isWithin(nlink, U32_MAX) || nlink === 0) throw invalid(`link count ${nlink}`);
  if (isDeviceMode(mode) && !(isWithin(rdevMajor, MAJOR_MAX) && isWithin(rdevMinor, MINOR_MAX))) {
    throw invalid(`device number ${rdevMajor}:${rdevMinor}`);
  }
  checkData(mode & FILE_TYPE_MASK, inode.data);
}

function checkData(type: number, data: ErofsData): void {
  if (type === FILE_TYPE.symlink) {
    const bytes = data.kind === "inline" ? data.bytes : new Uint8Array();
    if (bytes.length === 0 || bytes.length > SYMLINK_BYTES_MAX) {
      throw invalid(`symlink target of ${bytes.length} bytes, not 1 to ${SYMLINK_BYTES_MAX}`);
    }
    if (!isByteString(Buffer.from(bytes).toString("latin1")))
      throw invalid("zero byte in a symlink");
    return;
  }
  if (type !== FILE_TYPE.regular && data.kind !== "none") {
    throw invalid("only regular files and symlinks have data");
  }
  if (data.kind === "extents" && !Number.isSafeInteger(data.size)) {
    throw invalid(`file size ${data.size}`);
  }
  if (data.kind === "extents" && data.size < 0) throw invalid(`file size ${data.size}`);
  if (data.kind === "inline" && data.bytes.length > INLINE_DATA_BYTES_MAX) {
    throw invalid(`${data.bytes.length} bytes of data to keep in the image`);
  }
}
