/** The Snapshots service of containerd's remote-snapshotter contract. */
export { ContainerdClient } from "./containerd/client.ts";
export type { ContainerdApi, ContentInfo } from "./containerd/client.ts";
export type { ImageProvider, ImageRequest, ProvidedLayer } from "./image-provider.ts";
export { SnapshotterServer } from "./service/server.ts";
export { Snapshotter } from "./snapshotter.ts";
export type { SnapshotterOptions } from "./snapshotter.ts";
export type { Mount, SnapshotInfo } from "./snapshot-info.ts";
