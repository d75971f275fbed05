/**
 * The daemon: reads the configuration, builds, starts, supervises and stops the roles. Heavy parts
 * are imported when they are used: `faasnet status` needs none of them.
 */
import { resolve } from "node:path";
import { DEFAULT_CONFIG_TOML } from "./config-file.ts";
import { loadConfig } from "./config.ts";
import type { Config, ModeSetting } from "./config.ts";
import type { MountOptions, MountSummary } from "./mount-command.ts";

export { loadConfig, MODE_SETTINGS } from "./config.ts";
export type { Config, ConfigOverrides, ModeSetting } from "./config.ts";
export type { EnsureProgress } from "./ensure-image.ts";
export type {
  CertificateReport,
  MirrorReport,
  PeerProblemKind,
  PeersReport,
  TreeMemberReport,
  TreeReport,
  TreesReport,
} from "./peer-reports.ts";
export { statePaths } from "./paths.ts";
export type { MountOptions, MountSummary } from "./mount-command.ts";

export async function runDaemon(
  config: Config,
  options: { readonly signal: AbortSignal },
): Promise<void> {
  const daemon = await import("./daemon.ts");
  await daemon.runDaemon(config, options);
}

export interface RunMountRequest {
  /** A reference, or `oci:DIR` and the like with a path relative to the working directory. */
  readonly image: string;
  /** An absolute path of an existing folder. */
  readonly target: string;
  readonly mode: ModeSetting;
  /** `OS/ARCH[/VARIANT]`; undefined is this machine's. */
  readonly platform: string | undefined;
  readonly root: string;
  readonly state: string;
  /** `--config`, for the keys that are not here. */
  readonly configFile: string | undefined;
}

export async function runMount(
  request: RunMountRequest,
  options: MountOptions,
): Promise<MountSummary> {
  const { mountImage } = await import("./mount-command.ts");
  const { image, target, platform, mode, root, state, configFile: file } = request;
  const config = await loadConfig({ file, overrides: { root, state, mode } });
  return mountImage({ image: absoluteImage(image), target, platform, config }, options);
}

/** `oci:dir` to `oci:/where/we/are/dir`: what keeps the text may run elsewhere. */
function absoluteImage(image: string): string {
  const [, transport, path] = /^(oci|oci-archive|docker-archive):(.*)$/s.exec(image) ?? [];
  return transport === undefined ? image : `${transport}:${resolve(path ?? "")}`;
}

export function defaultConfigToml(): string {
  return DEFAULT_CONFIG_TOML;
}

export async function umount(
  request: { readonly target: string; readonly state: string },
  options: { readonly signal: AbortSignal },
): Promise<void> {
  const { unmountFolder } = await import("./mount-records.ts");
  await unmountFolder(request, options);
}
