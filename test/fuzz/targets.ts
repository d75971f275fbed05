/** Every target, in the order in which they are run. */
import { BLOCK_TARGETS } from "./targets/block.ts";
import { CACHE_TARGETS } from "./targets/cache.ts";
import { CONTROL_TARGETS } from "./targets/control.ts";
import { EROFS_TARGETS } from "./targets/erofs.ts";
import { EXCHANGE_TARGETS } from "./targets/exchange.ts";
import { IMAGE_TARGETS } from "./targets/image.ts";
import { MAP_TARGETS } from "./targets/layer-map.ts";
import { OCI_TARGETS } from "./targets/oci.ts";
import { PEER_TARGETS } from "./targets/peer.ts";
import { REGISTRY_TARGETS } from "./targets/registry.ts";
import { SNAPSHOTTER_TARGETS } from "./targets/snapshotter.ts";
import { TREE_TARGETS } from "./targets/tree.ts";
import type { FuzzTarget } from "./target.ts";

export const TARGETS: readonly FuzzTarget[] = [
  ...IMAGE_TARGETS,
  ...BLOCK_TARGETS,
  ...EROFS_TARGETS,
  ...MAP_TARGETS,
  ...SNAPSHOTTER_TARGETS,
  ...OCI_TARGETS,
  ...REGISTRY_TARGETS,
  ...CONTROL_TARGETS,
  ...CACHE_TARGETS,
  ...PEER_TARGETS,
  ...EXCHANGE_TARGETS,
  ...TREE_TARGETS,
];
