/**
 * Extended attribute names: EROFS stores an index for the prefix and the rest as it is.
 *
 * Source: `EROFS_XATTR_INDEX_*` and the handlers in the kernel's `fs/erofs/xattr.c`. The value of
 * a POSIX ACL is kept as `setxattr` takes it (`struct posix_acl_xattr_header`, version 2).
 *
 * A name outside these prefixes is dropped: the kernel has no handler for it on any file system,
 * so unpacking it gives ENOTSUP, which containerd's unpacker passes over with a warning.
 * So is a name that the kernel keeps from files of a type (`fs/xattr.c: xattr_permission`,
 * `fs/posix_acl.c`): it would be listed but could not be read, and overlayfs gives up a copy-up
 * when it meets one.
 */
import { DaemonError } from "../base/errors.ts";
import { isByteString, quoteName } from "./byte-strings.ts";
import { FILE_TYPE, FILE_TYPE_MASK, NAME_BYTES_MAX } from "./format.ts";

export interface XattrName {
  readonly index: number;
  readonly suffix: string;
}

const USER_INDEX = 1;
const ACL_ACCESS_INDEX = 2;
const ACL_DEFAULT_INDEX = 3;

const WHOLE_NAMES: ReadonlyMap<string, number> = new Map([
  ["system.posix_acl_access", ACL_ACCESS_INDEX],
  ["system.posix_acl_default", ACL_DEFAULT_INDEX],
]);

const PREFIXES: ReadonlyMap<string, number> = new Map([
  ["user.", USER_INDEX],
  ["trusted.", 4],
  ["security.", 6],
]);

/** Whether the kernel lets a file of the mode have an xattr of the name. */
export function isXattrAllowed(name: XattrName, mode: number): boolean {
  const type = mode & FILE_TYPE_MASK;
  const isDirectory = type === FILE_TYPE.directory;
  if (name.index === USER_INDEX) return isDirectory || type === FILE_TYPE.regular;
  if (name.index === ACL_ACCESS_INDEX) return type !== FILE_TYPE.symlink;
  return name.index !== ACL_DEFAULT_INDEX || isDirectory;
}

interface Prefix {
  readonly text: string;
  readonly isWhole: boolean;
}

function prefixesByIndex(): ReadonlyMap<number, Prefix> {
  const prefixes = new Map<number, Prefix>();
  for (const [text, index] of WHOLE_NAMES) prefixes.set(index, { text, isWhole: true });
  for (const [text, index] of PREFIXES) prefixes.set(index, { text, isWhole: false });
  return prefixes;
}

const PREFIX_OF_INDEX = prefixesByIndex();

/** Undefined for a name that is to be dropped; throws `invalid-argument` for a malformed one. */
export function encodeXattrName(name: string): XattrName | undefined {
  const whole = WHOLE_NAMES.get(name);
  if (whole !== undefined) return { index: whole, suffix: "" };
  const prefix = name.slice(0, name.indexOf(".") + 1);
  const index = PREFIXES.get(prefix);
  if (index === undefined) return undefined;
  const suffix = name.slice(prefix.length);
  if (suffix === "" || name.length > NAME_BYTES_MAX || !isByteString(suffix)) {
    throw new DaemonError("invalid-argument", `malformed xattr name ${quoteName(name)}`);
  }
  return { index, suffix };
}

/** Undefined where the index is unknown or the suffix does not belong to it. */
export function decodeXattrName(index: number, suffix: string): string | undefined {
  const prefix = PREFIX_OF_INDEX.get(index);
  if (prefix?.isWhole !== (suffix === "")) return undefined;
  return isByteString(suffix) ? prefix.text + suffix : undefined;
}
