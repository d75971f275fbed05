/** N real daemons on a private network, and everything that may go wrong between them. */
export { idleShare, machineTime, processSeconds } from "./cpu.ts";
export type { ContainerResult } from "./container.ts";
export {
  registryUse,
  runFleet,
  type FleetRun,
  type NodeStart,
  type RegistryUse,
} from "./fleet-run.ts";
export { NodeNetwork, clearAbandonedNetworks, hostPort } from "./network.ts";
export { freeze, killNode, killServer, makeLiar, skewClock, thaw, untilServing } from "./faults.ts";
export {
  parseReadLog,
  readerProgram,
  writeFileList,
  type FileList,
  type ReadLog,
} from "./reader.ts";
export { TreeLab, hasPeerSection, type TreeLabOptions } from "./tree-lab.ts";
export type { NodeMount, NodeRole, PeerSettings, TreeNode } from "./tree-node.ts";
