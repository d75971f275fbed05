/** What a file system answers instead of a value. Source: asm-generic/errno.h. */

export class Errno {
  /** Positive. */
  readonly value: number;
  readonly name: string;

  constructor(name: string, value: number) {
    this.name = name;
    this.value = value;
  }
}

export const ENOENT = new Errno("ENOENT", 2);
export const EIO = new Errno("EIO", 5);
export const EBADF = new Errno("EBADF", 9);
export const ENOTDIR = new Errno("ENOTDIR", 20);
export const EISDIR = new Errno("EISDIR", 21);
export const EINVAL = new Errno("EINVAL", 22);
export const ENFILE = new Errno("ENFILE", 23);
export const ERANGE = new Errno("ERANGE", 34);
export const ENODATA = new Errno("ENODATA", 61);
