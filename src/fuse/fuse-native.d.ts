/** The part of fuse-native 2.2.6 that we use. It ships no types. */
declare module "fuse-native" {
  /** Answers a request: result or -errno first, then what the operation's C glue expects. */
  export type NativeSignal = (result: number, ...values: unknown[]) => void;

  export interface NativeOptions {
    readonly timeout: false;
  }

  /** `_op_*` take the C glue's arguments; assigning them replaces fuse-native's own handling. */
  class Fuse {
    constructor(mountpoint: string, operations: object, options: NativeOptions);
    open(callback: (error: unknown) => void): void;
    close(callback: (error: unknown) => void): void;
    /** One buffer for each libfuse thread that ever served this mount. */
    readonly _threads: ReadonlySet<unknown>;
    _fuseOptions: () => string;
    _op_getattr: (signal: NativeSignal, path: string) => void;
    _op_readdir: (signal: NativeSignal, path: string) => void;
    _op_readlink: (signal: NativeSignal, path: string) => void;
    _op_open: (signal: NativeSignal, path: string, flags: number) => void;
    _op_release: (signal: NativeSignal, path: string, handle: number) => void;
    _op_read: (
      signal: NativeSignal,
      path: string,
      handle: number,
      buffer: Buffer,
      length: number,
      offsetLow: number,
      offsetHigh: number,
    ) => void;
    _op_getxattr: (signal: NativeSignal, path: string, name: string, value: Buffer) => void;
    _op_listxattr: (signal: NativeSignal, path: string, list: Buffer) => void;
    _op_statfs: (signal: NativeSignal, path: string) => void;
    static unmount: (mountpoint: string, callback: (error: unknown) => void) => void;
  }
  export default Fuse;
}
