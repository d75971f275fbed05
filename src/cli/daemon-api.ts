/**
 * What the command line needs from the daemon module, as an interface, so that commands are tested
 * without mounting anything. real-daemon.ts supplies it from src/daemon/.
 */

/** The configuration keys that the command line itself looks at. */
export interface CliConfig {
  readonly root: string;
  readonly state: string;
  /** The snapshotter's socket, for containerd. */
  readonly address: string;
}

export const MOUNT_MODES = ["auto", "erofs", "loop", "fuse"] as const;
export type MountMode = (typeof MOUNT_MODES)[number];

/** Options that overrule the configuration file; undefined leaves its value. */
export interface ConfigOverrides {
  readonly root?: string | undefined;
  readonly state?: string | undefined;
  readonly address?: string | undefined;
  readonly mode?: MountMode | undefined;
}

/** How far the map of an image is. */
export interface MapProgress {
  /** `resolve`, then `map`. */
  readonly phase: string;
  /** Bytes of the layers' blobs read so far, and in all (0 while unknown). */
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly layersDone: number;
  readonly layers: number;
}

export interface MountedImage {
  /** The mode that was chosen, never `auto`. */
  readonly mode: string;
  /** Why that mode, in words. */
  readonly modeReason: string;
  readonly files: number;
}

/** What a mount did, told when it ends. */
export interface MountSummary {
  readonly files: number;
  /** Bytes of the unpacked layers. */
  readonly imageBytes: number;
  /** Bytes that came from the registry. */
  readonly fetchedBytes: number;
  /** Blocks read, by where they came from: `memory`, `disk`, `registry`. */
  readonly blocksBySource: Readonly<Record<string, number>>;
}

export interface MountRequest {
  readonly image: string;
  /** An absolute path of an existing folder. */
  readonly target: string;
  readonly mode: MountMode;
  /** `OS/ARCH[/VARIANT]`; undefined is this machine's. */
  readonly platform: string | undefined;
  readonly root: string;
  readonly state: string;
  /** `--config`, for the keys that are not here. */
  readonly configFile: string | undefined;
}

export interface MountOptions {
  readonly signal: AbortSignal;
  readonly onProgress: (progress: MapProgress) => void;
  readonly onMounted: (mounted: MountedImage) => void;
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
  runMount(request: MountRequest, options: MountOptions): Promise<MountSummary>;
  /** Unmounts what `runMount` mounted; `not-found` when the folder is no mount of ours. */
  umount(
    request: { readonly target: string; readonly state: string },
    options: { readonly signal: AbortSignal },
  ): Promise<void>;
}
