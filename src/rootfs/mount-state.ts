/** What is mounted where, kept in the state folder so that a restarted image service adopts it. */
import { readFile, rename, writeFile } from "node:fs/promises";
import { DaemonError, systemErrorName } from "../base/errors.ts";

export type MountMode = "erofs" | "loop" | "fuse";
export const MOUNT_MODES: readonly MountMode[] = ["erofs", "loop", "fuse"];

export interface MountedLayer {
  /** diff ID, hex. */
  readonly layerId: string;
  /** Of its FUSE mount when the chain was mounted; empty in fuse mode. */
  readonly device: string;
}

export interface MountedChain {
  /** Hex. */
  readonly chainId: string;
  readonly path: string;
  readonly mode: MountMode;
  readonly metadataPath: string;
  /** `major:minor` of the mount at `path`. */
  readonly device: string;
  /** Bottom first. */
  readonly layers: readonly MountedLayer[];
}

export interface MountState {
  /** Numbers of the layers' mountpoints. */
  readonly layers: ReadonlyMap<string, number>;
  readonly chains: readonly MountedChain[];
}

const STATE_VERSION = 1;
const STATE_BYTES_MAX = 64 * 1024 * 1024;

function isText(value: unknown): value is string {
  return typeof value === "string";
}

function parseChain(value: unknown): MountedChain | undefined {
  const chain = value as Partial<Record<keyof MountedChain, unknown>>;
  const { chainId, path, mode, metadataPath, device, layers } = chain;
  const known = MOUNT_MODES.find((one) => one === mode);
  if (!isText(chainId) || !isText(path) || !isText(metadataPath) || !isText(device))
    return undefined;
  if (known === undefined || !Array.isArray(layers)) return undefined;
  const parsed: MountedLayer[] = [];
  for (const layer of layers as Partial<MountedLayer>[]) {
    if (!isText(layer.layerId) || !isText(layer.device)) return undefined;
    parsed.push({ layerId: layer.layerId, device: layer.device });
  }
  return { chainId, path, mode: known, metadataPath, device, layers: parsed };
}

/** Unreadable state is no state: mounts that it named are then found dead and replaced. */
export function parseMountState(text: string): MountState {
  const empty: MountState = { layers: new Map(), chains: [] };
  if (text.length > STATE_BYTES_MAX) return empty;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return empty;
  }
  if (typeof value !== "object" || value === null) return empty;
  const { version, layers, chains } = value as Record<string, unknown>;
  if (version !== STATE_VERSION || !Array.isArray(chains)) return empty;
  const numbers = new Map<string, number>();
  for (const [layerId, number] of Object.entries(layers ?? {})) {
    if (Number.isSafeInteger(number) && (number as number) >= 0) {
      numbers.set(layerId, number as number);
    }
  }
  const isChain = (item: unknown): boolean => typeof item === "object" && item !== null;
  return {
    layers: numbers,
    chains: (chains as unknown[]).filter(isChain).flatMap((item) => parseChain(item) ?? []),
  };
}

export async function readMountState(path: string): Promise<MountState> {
  try {
    return parseMountState(await readFile(path, "utf8"));
  } catch (error) {
    if (systemErrorName(error) === "ENOENT") return { layers: new Map(), chains: [] };
    throw new DaemonError("internal", `cannot read ${path}`, { cause: error });
  }
}

/** Whole or not at all; the folder does not outlive a reboot, so nothing is synced. */
export async function writeMountState(path: string, state: MountState): Promise<void> {
  const { layers, chains } = state;
  const text = JSON.stringify({
    version: STATE_VERSION,
    layers: Object.fromEntries(layers),
    chains,
  });
  await writeFile(`${path}.new`, text, { mode: 0o600 });
  await rename(`${path}.new`, path);
}
