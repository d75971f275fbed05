/**
 * What the command line needs from the daemon module, as an interface, so that commands are tested
 * without mounting anything. real-daemon.ts supplies it from src/daemon/.
 */

import type {
  ConfigOverrides,
  MountOptions,
  MountSummary,
  RunMountRequest,
} from "../daemon/index.ts";

/** The configuration keys that the command line itself looks at. */
export interface CliConfig {
  readonly root: string;
  readonly state: string;
  /** The snapshotter's socket, for containerd. */
  readonly address: string;
}

export interface DaemonApi<Config extends CliConfig = CliConfig> {
  /** Throws `invalid-argument` with all mistakes at once; `not-found` when `file` is not there. */
  loadConfig(options: {
    readonly file?: string | undefined;
    readonly overrides?: ConfigOverrides;
  }): Promise<Config>;
  /** The default configuration file with its comments. */
  defaultConfigToml(): string;
  /** Where the image service of the daemon with this state folder listens. */
  imageSocketPath(state: string): string;
  /** Runs until the signal aborts, then stops cleanly. Rejects when it cannot start. */
  runDaemon(config: Config, options: { readonly signal: AbortSignal }): Promise<void>;
  /**
   * Mounts and stays until the signal aborts or somebody unmounts the folder; then resolves. An
   * abort before `onMounted` rejects with `canceled`.
   */
  runMount(request: RunMountRequest, options: MountOptions): Promise<MountSummary>;
  /** Unmounts what `runMount` mounted; `not-found` when the folder is no mount of ours. */
  umount(
    request: { readonly target: string; readonly state: string },
    options: { readonly signal: AbortSignal },
  ): Promise<void>;
}
