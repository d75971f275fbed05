/**
 * The expected trees: containerd itself unpacks the images into its overlayfs snapshots, and the
 * kernel's overlay lies over those. All is on a tmpfs: what is compared is no matter of disks.
 */
import { Metadata } from "@grpc/grpc-js";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { mount, unmount } from "../../../src/base/native.ts";
import { call, loadServices, openClient, type DynamicClient } from "../lab/grpc.ts";
import {
  chainIdsOf,
  Containerd,
  containerdProtoFolder,
  parseTree,
  projectFolder,
  run,
  type Lab,
  type TreeManifest,
} from "../lab/index.ts";
import type { BuiltImage } from "./built-image.ts";

/** What one overlay shows, and when containerd unpacked it. */
export interface Expected {
  readonly tree: TreeManifest;
  readonly unpackedFrom: number;
  readonly unpackedTo: number;
}

const API = "github.com/containerd/containerd/api";
const OCI = "application/vnd.oci.image";
const DOCKER = "application/vnd.docker";

interface Snapshots {
  readonly client: DynamicClient;
  readonly metadata: Metadata;
}

export class Oracle implements AsyncDisposable {
  readonly #lab: Lab;
  readonly #folder: string;
  readonly #containerd: Containerd;
  readonly #snapshots: Snapshots;
  readonly #walker: string;
  readonly #startedSeconds = Math.floor(Date.now() / 1000) - 1;
  #count = 0;

  private constructor(
    lab: Lab,
    folder: string,
    containerd: Containerd,
    snapshots: Snapshots,
    walker: string,
  ) {
    this.#lab = lab;
    this.#folder = folder;
    this.#containerd = containerd;
    this.#snapshots = snapshots;
    this.#walker = walker;
  }

  static async start(lab: Lab): Promise<Oracle> {
    const folder = await lab.makeFolder("o");
    const data = "size=6g,mode=755";
    await mount({ fsType: "tmpfs", source: "none", target: folder, flags: 0, data });
    lab.defer(() => unmount(folder, { detach: true }));
    for (const name of ["empty", "merged", "lab"]) await mkdir(join(folder, name));
    // containerd's folder is one of the lab's, but on the tmpfs.
    const containerd = await Containerd.start(onFolder(lab, join(folder, "lab")), { line: "2" });
    const walker = await buildWalker(folder);
    return new Oracle(lab, folder, containerd, await openSnapshots(containerd), walker);
  }

  /** Unpacks all images, then walks them one after the other; a text is why containerd refuses. */
  async *expected(images: readonly BuiltImage[]): AsyncGenerator<Expected | string> {
    const unpackedFrom = this.#startedSeconds; // layers are unpacked once, by any image before
    const isAllUnpacked = await this.#unpack(images).then(
      () => true,
      () => false,
    );
    for (const image of images) {
      const refusal = isAllUnpacked ? undefined : await this.#unpack([image]).catch(String);
      const unpackedTo = Math.ceil(Date.now() / 1000) + 1;
      yield refusal ?? { tree: await this.#walk(image), unpackedFrom, unpackedTo };
    }
  }

  async #unpack(images: readonly BuiltImage[]): Promise<void> {
    const archive = await this.#writeArchive(images);
    await this.#containerd.ctr(["image", "import", "--local", "--all-platforms", archive]);
    await rm(archive);
  }

  async #walk(image: BuiltImage): Promise<TreeManifest> {
    const parent = chainIdsOf(image.layers.map(({ diffId }) => diffId)).at(-1) ?? "";
    const { client, metadata } = this.#snapshots;
    const key = `view-${(this.#count += 1)}`;
    const labels = { "containerd.io/gc.root": "equality" }; // else the collector may take it
    const request = { snapshotter: "overlayfs", key, parent, labels };
    const answer = await call(client, "View", request, { metadata });
    const [{ source, options, type } = { source: "", options: [], type: "" }] = answer[
      "mounts"
    ] as { type: string; source: string; options: string[] }[];
    const lowers =
      type === "overlay"
        ? (options.find((option) => option.startsWith("lowerdir=")) ?? "").slice(9)
        : source;
    const target = join(this.#folder, "merged");
    // The empty folder makes an overlay of a single layer, and the root a merged folder always.
    const data = `lowerdir=${lowers}:${join(this.#folder, "empty")}`;
    await mount({ fsType: "overlay", source: "overlay", target, flags: 0, data });
    try {
      return parseTree((await run(this.#walker, [target])).stdout);
    } finally {
      await unmount(target, { detach: false });
      await call(client, "Remove", { snapshotter: "overlayfs", key }, { metadata });
    }
  }

  async #writeArchive(images: readonly BuiltImage[]): Promise<string> {
    const folder = join(this.#folder, "oci");
    const blobs = join(folder, "blobs", "sha256");
    await rm(folder, { recursive: true, force: true });
    await mkdir(blobs, { recursive: true });
    const manifests: object[] = [];
    for (const image of images) {
      const name = `lab.test/image:${(this.#count += 1)}`;
      for (const { blob, digest } of image.layers)
        await writeFile(join(blobs, digest.slice(7)), blob);
      for (const bytes of [image.config, image.manifest]) {
        await writeFile(join(blobs, bytes.digest.slice(7)), bytes.bytes);
      }
      manifests.push({
        mediaType: image.isDocker
          ? `${DOCKER}.distribution.manifest.v2+json`
          : `${OCI}.manifest.v1+json`,
        digest: image.manifest.digest,
        size: image.manifest.bytes.length,
        platform: { os: "linux", architecture: "amd64" },
        annotations: { "io.containerd.image.name": name },
      });
    }
    await writeFile(join(folder, "index.json"), JSON.stringify({ schemaVersion: 2, manifests }));
    await writeFile(join(folder, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
    const archive = join(this.#folder, "oci.tar");
    await run("tar", ["-C", folder, "-cf", archive, "."]);
    await rm(folder, { recursive: true });
    return archive;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#snapshots.client.close();
    await this.#lab[Symbol.asyncDispose]();
  }
}

/** The lab, but for where it makes folders. */
function onFolder(lab: Lab, folder: string): Lab {
  return new Proxy(lab, {
    get: (target, property) => {
      if (property === "makeFolder") {
        return async (name: string): Promise<string> => {
          const made = join(folder, name);
          await mkdir(made, { recursive: true });
          return made;
        };
      }
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
}

async function openSnapshots(containerd: Containerd): Promise<Snapshots> {
  const proto = join(containerdProtoFolder, API, "services", "snapshots", "v1", "snapshots.proto");
  const service = await loadServices([proto], [containerdProtoFolder]);
  const client = openClient(
    service("containerd.services.snapshots.v1.Snapshots"),
    containerd.address,
  );
  const metadata = new Metadata();
  metadata.set("containerd-namespace", "default");
  return { client, metadata };
}

async function buildWalker(folder: string): Promise<string> {
  const support = join(projectFolder, "test", "support");
  const walker = join(folder, "walk");
  const header = join(support, "equality", "openable-names.h");
  const source = join(support, "lab", "tree-walk.c");
  await run("gcc", ["-O2", "-include", header, "-o", walker, source, "-l:libcrypto.so.3"]);
  return walker;
}
