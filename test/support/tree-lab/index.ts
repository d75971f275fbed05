/** N real daemons on a private network, and everything that may go wrong between them. */
export { idleShare, machineTime, processSeconds } from "./cpu.ts";
export { freeze, killNode, killServer, makeLiar, skewClock, thaw, untilServing } from "./faults.ts";
export { registryUse, runFleet, type FleetRun } from "./fleet-run.ts";
export { clearAbandonedNetworks, type Host } from "./network.ts";
export { builtVersions, otherBuild, type Versions } from "./other-build.ts";
export {
  PacketTape,
  hardwareOf,
  payloadOf,
  readdressed,
  sendFrames,
  sourceOf,
  targetOf,
  type Frame,
} from "./packet-wire.ts";
export {
  parseReadLog,
  readerProgram,
  writeFileList,
  type FileList,
  type ReadLog,
} from "./reader.ts";
export { runStranger, type StrangerPlan, type StrangerResult } from "./stranger.ts";
export { TreeLab } from "./tree-lab.ts";
export type { NodeMount, PeerSettings, TreeNode } from "./tree-node.ts";
