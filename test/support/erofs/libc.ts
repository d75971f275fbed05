/** System calls that Node lacks, for tests: they act on local, in-kernel file systems only. */
import { getSystemErrorName } from "node:util";
import koffi from "koffi";

const libc = koffi.load(null);

type Call = (...args: readonly unknown[]) => number | bigint;

function bind(signature: string): Call {
  const call = libc.func(signature);
  const name = /(\w+)\(/.exec(signature)?.[1] ?? signature;
  return (...args) => {
    const result = Number(call(...args));
    if (result < 0) {
      const code = getSystemErrorName(-koffi.errno());
      throw Object.assign(new Error(`${name}: ${code} (${String(args[0])})`), { code });
    }
    return result;
  };
}

const calls = {
  mount: bind(
    "int mount(const char *source, const char *target, const char *type, ulong flags, const char *data)",
  ),
  umount2: bind("int umount2(const char *target, int flags)"),
  mknod: bind("int mknod(const void *path, uint32_t mode, uint64_t device)"),
  lsetxattr: bind(
    "int lsetxattr(const void *path, const void *name, const void *value, size_t size, int flags)",
  ),
  llistxattr: bind("long llistxattr(const void *path, void *list, size_t size)"),
  lgetxattr: bind("long lgetxattr(const void *path, const void *name, void *value, size_t size)"),
  utimensat: bind(
    "int utimensat(int directory, const void *path, const int64_t *times, int flags)",
  ),
};

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const MS_RDONLY = 1;
const MNT_DETACH = 2;

/** With the terminating zero. */
function cString(text: string): Buffer {
  return Buffer.from(`${text}\0`, "latin1");
}

export function mount(
  type: string,
  source: string,
  target: string,
  options: { readonly data: string; readonly isReadOnly: boolean },
): void {
  calls.mount(source, target, type, options.isReadOnly ? MS_RDONLY : 0, options.data);
}

export function unmount(target: string): void {
  calls.umount2(target, MNT_DETACH);
}

/** `path` is a byte string, as in all functions below. */
export function makeNode(path: string, mode: number, major: number, minor: number): void {
  // glibc's makedev.
  const low = (minor & 0xff) | ((major & 0xfff) << 8);
  calls.mknod(cString(path), mode, BigInt(low) + BigInt(minor >>> 8) * 0x100000n);
}

export function setXattr(path: string, name: string, value: Uint8Array): void {
  calls.lsetxattr(cString(path), cString(name), Buffer.from(value), value.length, 0);
}

export function readXattrs(path: string): Map<string, Uint8Array> {
  const where = cString(path);
  const list = Buffer.alloc(65_536);
  const length = Number(calls.llistxattr(where, list, list.length));
  const names = list.toString("latin1", 0, length).split("\0").filter(Boolean);
  return new Map(
    names.map((name) => {
      const value = Buffer.alloc(65_536);
      const size = Number(calls.lgetxattr(where, cString(name), value, value.length));
      return [name, value.subarray(0, size)];
    }),
  );
}

export function setMtime(path: string, sec: number, nsec: number): void {
  const times = BigInt64Array.from([sec, nsec, sec, nsec].map(BigInt));
  calls.utimensat(AT_FDCWD, cString(path), times, AT_SYMLINK_NOFOLLOW);
}
