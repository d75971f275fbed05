/** Mounted chains of layers: the kernel's side (EROFS, loop, FUSE) and the keeper's client. */
export { DEVICE_BLOCK_BYTES, KeeperClient } from "./keeper-client.ts";
export type { FetchReply, KeeperClientOptions, ServedLayer, ServedTree } from "./keeper-client.ts";
export type { KeeperHello, KeeperStats } from "./messages.ts";
export { MOUNT_MODES } from "./mount-state.ts";
export type { MountedChain, MountedLayer, MountMode } from "./mount-state.ts";
export { Rootfs } from "./rootfs.ts";
export type { ChainLayer, ChainMount, MountedPath, RootfsOptions } from "./rootfs.ts";
export { selfTest } from "./self-test.ts";
export type { SelfTestOptions, SelfTestVerdict } from "./self-test.ts";
