/** POSIX ACLs as values of xattrs. Source: Linux posix_acl_xattr.h. */
export const [OWNER, USER, GROUP_OWNER, GROUP, MASK, OTHER] = [1, 2, 4, 8, 16, 32] as const;

export type AclEntry = readonly [tag: number, permissions: number, id?: number];

export function acl(...entries: readonly AclEntry[]): Buffer {
  const bytes = Buffer.alloc(4 + 8 * entries.length);
  bytes.writeUInt32LE(2, 0);
  for (const [index, [tag, permissions, id = 0xffff_ffff]] of entries.entries()) {
    bytes.writeUInt16LE(tag, 4 + 8 * index);
    bytes.writeUInt16LE(permissions, 6 + 8 * index);
    bytes.writeUInt32LE(id, 8 + 8 * index);
  }
  return bytes;
}
