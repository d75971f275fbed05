/** The process that holds the FUSE sessions. */
export { DATA_FILE_NAME } from "./data-file-system.ts";
export { READ_WAIT_MS } from "./layer-device.ts";
export { Keeper } from "./keeper.ts";
export type { KeeperOptions } from "./keeper.ts";
export { main as keeperMain } from "./keeper-process.ts";
