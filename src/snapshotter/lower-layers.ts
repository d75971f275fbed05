/** The folders below a snapshot: those of local ancestors, then one for the claimed chain. */
import { DaemonError } from "../base/errors.ts";
import type { ImageProvider } from "./image-provider.ts";
import { LOWER_LAYERS_MAX } from "./limits.ts";
import { checkMountPath } from "./mounts.ts";
import type { Store } from "./store.ts";
import type { SnapshotRecord } from "./snapshot-info.ts";

/**
 * Nearest first. A claimed ancestor ends the walk: its chain's mount holds all that is below it,
 * whether those layers are claimed too or were unpacked.
 */
export function ancestors(store: Store, parent: string): SnapshotRecord[] {
  const chain: SnapshotRecord[] = [];
  for (let name = parent; name !== "";) {
    const record = store.metastore.get(name);
    if (record === undefined) {
      throw new DaemonError("data-loss", `snapshot ${name} is missing below ${parent}`);
    }
    chain.push(record);
    if (record.chainId !== undefined) break;
    if (chain.length > LOWER_LAYERS_MAX) {
      throw new DaemonError("failed-precondition", `chain of more than ${LOWER_LAYERS_MAX} layers`);
    }
    name = record.parent;
  }
  return chain;
}

/** Re-establishes the chain's mount where it is gone (a reboot); asks no registry. */
export async function lowerFolders(
  store: Store,
  provider: ImageProvider,
  parent: string,
  options: { readonly signal: AbortSignal },
): Promise<string[]> {
  const lowers: string[] = [];
  for (const record of ancestors(store, parent)) {
    if (record.chainId === undefined) {
      lowers.push(store.folders.upper(record.id));
    } else {
      const path = await provider.mount(record.chainId, options);
      checkMountPath(path);
      lowers.push(path);
    }
  }
  return lowers;
}
