/** Mounted chains of layers: the kernel's side (EROFS, loop, FUSE) and the keeper's client. */
export { KeeperClient } from "./keeper-client.ts";
export type { FetchReply, KeeperClientOptions } from "./keeper-client.ts";
export { MOUNT_MODES } from "./mount-state.ts";
export type { MountMode } from "./mount-state.ts";
export { Rootfs } from "./rootfs.ts";
export type { ChainLayer, ChainMount, MountedPath } from "./rootfs.ts";
export { selfTest } from "./self-test.ts";
export type { SelfTestVerdict } from "./self-test.ts";
