/**
 * POSIX ACLs as values of xattrs, and what the kernel makes of them when they are set, and of a
 * file's access ACL when its mode is changed afterwards.
 *
 * Source: Linux posix_acl_xattr.h and fs/posix_acl.c (posix_acl_valid, posix_acl_equiv_mode,
 * posix_acl_chmod): a 4-byte header (version 2), then 8 bytes an entry: tag, permissions, id.
 */
export const ACCESS_ACL_XATTR = "system.posix_acl_access";
export const DEFAULT_ACL_XATTR = "system.posix_acl_default";

const VERSION = 2;
const HEADER_BYTES = 4;
const ENTRY_BYTES = 8;
const TAG = { userObj: 1, user: 2, groupObj: 4, group: 8, mask: 16, other: 32 } as const;
const NO_ID = 0xffff_ffff;

/** Setting it takes the ACL away. */
export const EMPTY_ACL: Uint8Array = Buffer.from([VERSION, 0, 0, 0]);

interface AclEntry {
  readonly tag: number;
  readonly permissions: number;
  readonly id: number;
}

/** Undefined where the kernel would refuse the value. */
function parse(value: Uint8Array): readonly AclEntry[] | undefined {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  const isSound = bytes.length % ENTRY_BYTES === HEADER_BYTES && bytes.readUInt32LE(0) === VERSION;
  if (!isSound) return undefined;
  const entries: AclEntry[] = [];
  for (let at = HEADER_BYTES; at < bytes.length; at += ENTRY_BYTES) {
    const tag = bytes.readUInt16LE(at);
    const permissions = bytes.readUInt16LE(at + 2);
    entries.push({ tag, permissions, id: bytes.readUInt32LE(at + 4) });
  }
  return entries.length === 0 || isValid(entries) ? entries : undefined;
}

/** Tags in order, those of nobody special exactly once, a mask where somebody is named. */
function isValid(entries: readonly AclEntry[]): boolean {
  const named = entries.filter(isNamed);
  const count = (tag: number): number => entries.filter((entry) => entry.tag === tag).length;
  const masks = count(TAG.mask);
  return (
    entries.every(({ tag }, index) => tag >= (entries[index - 1]?.tag ?? 0)) &&
    [TAG.userObj, TAG.groupObj, TAG.other].every((tag) => count(tag) === 1) &&
    masks <= 1 &&
    (masks === 1 || named.length === 0) &&
    entries.length === 3 + masks + named.length &&
    entries.every(({ permissions }) => permissions <= 7) &&
    named.every(({ id }) => id !== NO_ID)
  );
}

function isNamed({ tag }: AclEntry): boolean {
  return tag === TAG.user || tag === TAG.group;
}

function encode(entries: readonly AclEntry[]): Uint8Array {
  const bytes = Buffer.alloc(HEADER_BYTES + ENTRY_BYTES * entries.length);
  bytes.writeUInt32LE(VERSION, 0);
  for (const [index, entry] of entries.entries()) {
    const at = HEADER_BYTES + ENTRY_BYTES * index;
    bytes.writeUInt16LE(entry.tag, at);
    bytes.writeUInt16LE(entry.permissions, at + 2);
    bytes.writeUInt32LE(isNamed(entry) ? entry.id : NO_ID, at + 4);
  }
  return bytes;
}

export function isAcl(value: Uint8Array): boolean {
  return parse(value) !== undefined;
}

/**
 * The xattrs of a file that had `held`, was given `set` and then the mode. An access ACL that says
 * no more than a mode goes, and the mode's bits are written into any other.
 */
export function withAcls(
  held: ReadonlyMap<string, Uint8Array>,
  set: ReadonlyMap<string, Uint8Array>,
  mode: number,
): ReadonlyMap<string, Uint8Array> {
  const xattrs = new Map([...held, ...set]);
  const access = xattrs.get(ACCESS_ACL_XATTR);
  if (access !== undefined) keep(xattrs, ACCESS_ACL_XATTR, accessAclOf(access, mode));
  const byDefault = xattrs.get(DEFAULT_ACL_XATTR);
  if (byDefault !== undefined) keep(xattrs, DEFAULT_ACL_XATTR, defaultAclOf(byDefault));
  return xattrs;
}

function keep(xattrs: Map<string, Uint8Array>, name: string, value: Uint8Array | undefined): void {
  if (value === undefined) xattrs.delete(name);
  else xattrs.set(name, value);
}

function accessAclOf(value: Uint8Array, mode: number): Uint8Array | undefined {
  const entries = parse(value) ?? [];
  // Who names somebody has a mask too; without one it is the mode in other words.
  if (!entries.some(({ tag }) => tag === TAG.mask)) return undefined;
  const bits: Readonly<Record<number, number>> = {
    [TAG.userObj]: (mode >> 6) & 7,
    [TAG.mask]: (mode >> 3) & 7,
    [TAG.other]: mode & 7,
  };
  return encode(
    entries.map((entry) => ({ ...entry, permissions: bits[entry.tag] ?? entry.permissions })),
  );
}

function defaultAclOf(value: Uint8Array): Uint8Array | undefined {
  const entries = parse(value) ?? [];
  return entries.length === 0 ? undefined : encode(entries);
}
