/** The laboratory: real containerds, registries, images and trees, private to a test. */
export {
  Containerd,
  containerdConfig,
  type ContainerdOptions,
  type ProxySnapshotter,
  type PullOptions,
  type RunContainerOptions,
} from "./containerd.ts";
export { Cri, type CriResult } from "./cri.ts";
export {
  dropCaches,
  mounts,
  mountsUnder,
  processesOf,
  pssOf,
  unmountUnder,
  type MountEntry,
  type ProcessEntry,
} from "./kernel.ts";
export { pullByRef, type RefPullResult } from "./ref-client.ts";
export { Lab, clearAbandoned } from "./lab.ts";
export { withLab } from "./with-lab.ts";
export { missing, needs, type Needs } from "./needs.ts";
export {
  chainIdsOf,
  expectedTree,
  imageFacts,
  mountView,
  viewSnapshot,
  type ImageFacts,
} from "./oracle.ts";
export {
  CONTAINERD_LINES,
  LAB_IMAGES,
  containerdBinaries,
  containerdProtoFolder,
  criProto,
  erofsTools,
  findCommand,
  imagesFolder,
  labFolder,
  labImage,
  nerdctlPath,
  programPath,
  projectFolder,
  registryStorage,
  type ContainerdLine,
  type LabImage,
  type LabImageName,
} from "./paths.ts";
export {
  Server,
  eventually,
  killGroup,
  run,
  type RunOptions,
  type RunResult,
  type ServerOptions,
} from "./process.ts";
export {
  Registry,
  blobTraffic,
  freePort,
  parseAccessLog,
  type AccessEntry,
  type BlobTraffic,
  type RegistryOptions,
} from "./registry.ts";
export {
  compareTrees,
  parseTree,
  treeWalker,
  walkTree,
  walkTreeText,
  type CompareOptions,
  type TreeEntry,
  type TreeField,
  type TreeManifest,
} from "./tree.ts";
export { unclampedTree } from "./unclamped-tree.ts";
export {
  FaasnetDaemon,
  SNAPSHOTTER,
  startStack,
  type DaemonOptions,
  type DaemonStatus,
  type MountMode,
  type Stack,
  type StackOptions,
} from "./daemon.ts";
export { IMAGE_WORK, workOf, type ImageWork } from "./work.ts";
export { MountCommand, faasnetMount, type MountCommandOptions } from "./mount-command.ts";
export { Front, type FrontRequest, type FrontRule } from "./front.ts";
export { ImpairedRegistry, type Impairment, type ImpairedRequest } from "./impaired-registry.ts";
export { Meter, ROLES, type Memory, type MeterReport, type Role } from "./meter.ts";
export { SmallDisk } from "./small-disk.ts";
export { startImpairedStack, type ImpairedStack } from "./impaired-stack.ts";
export { SnapshotsClient, type SnapshotAnswer } from "./snapshots-client.ts";
