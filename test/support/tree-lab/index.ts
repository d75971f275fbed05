/** N real daemons on a private network, and everything that may go wrong between them. */
export { idleShare, machineTime, processSeconds } from "./cpu.ts";
export { freeze, killNode, killServer, makeLiar, skewClock, thaw, untilServing } from "./faults.ts";
export { registryUse, runFleet, type FleetRun } from "./fleet-run.ts";
export { clearAbandonedNetworks } from "./network.ts";
export {
  parseReadLog,
  readerProgram,
  writeFileList,
  type FileList,
  type ReadLog,
} from "./reader.ts";
export { TreeLab } from "./tree-lab.ts";
export type { PeerSettings, TreeNode } from "./tree-node.ts";
