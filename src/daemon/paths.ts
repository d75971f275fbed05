/** Where everything lies under ROOT (persistent) and STATE (gone after a reboot). */
import { join } from "node:path";
import { digestHex } from "../oci/index.ts";
import type { ChainId, DiffId, Digest } from "../oci/index.ts";

export interface RootPaths {
  readonly root: string;
  readonly layers: string;
  readonly chains: string;
  readonly images: string;
  readonly cache: string;
  readonly owner: string;
}

export function rootPaths(root: string): RootPaths {
  return {
    root,
    layers: join(root, "layers"),
    chains: join(root, "chains"),
    images: join(root, "images"),
    cache: join(root, "cache"),
    owner: join(root, "owner.json"),
  };
}

export function layerMapPath(paths: RootPaths, diffId: DiffId): string {
  return join(paths.layers, `${digestHex(diffId)}.map`);
}

export function chainMetadataPath(paths: RootPaths, chainId: ChainId): string {
  return join(paths.chains, `${digestHex(chainId)}.erofs`);
}

export function imageRecordPath(paths: RootPaths, manifest: Digest): string {
  return join(paths.images, `${digestHex(manifest)}.json`);
}

export interface StatePaths {
  readonly state: string;
  readonly keeperSocket: string;
  readonly imageSocket: string;
}

export function statePaths(state: string): StatePaths {
  return {
    state,
    keeperSocket: join(state, "keeper.sock"),
    imageSocket: join(state, "image.sock"),
  };
}
