/** The daemon module behind the interface that the commands use. */
import {
  defaultConfigToml,
  loadConfig,
  runDaemon,
  runMount,
  statePaths,
  umount,
} from "../daemon/index.ts";
import type { Config } from "../daemon/index.ts";
import type { DaemonApi } from "./daemon-api.ts";

export const realDaemon: DaemonApi<Config> = {
  loadConfig,
  defaultConfigToml,
  imageSocketPath: (state) => statePaths(state).imageSocket,
  runDaemon,
  runMount,
  umount,
};
