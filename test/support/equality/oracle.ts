/**
 * The expected trees: containerd itself unpacks the images into its overlayfs snapshots, and the
 * kernel's overlay lies over those. All is on a tmpfs: what is compared is no matter of disks.
 */
import { Metadata } from "@grpc/grpc-js";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { mount, unmount } from "../../../src/base/native.ts";
import type { Scope } from "../../../src/base/scope.ts";
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
import { Shell } from "./shell.ts";

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

export class Oracle {
  /** On a tmpfs. */
  readonly folder: string;
  readonly #containerd: Containerd;
  readonly #snapshots: Snapshots;
  readonly #walker: string;
  readonly #shell: Shell;
  readonly #startedSeconds = Math.floor(Date.now() / 1000) - 1;
  #count = 0;

  private constructor(
    folder: string,
    containerd: Containerd,
    snapshots: Snapshots,
    walker: string,
    shell: Shell,
  ) {
    this.folder = folder;
    this.#containerd = containerd;
    this.#snapshots = snapshots;
    this.#walker = walker;
    this.#shell = shell;
  }

  /** All of it ends with `scope`. */
  static async start(lab: Lab, scope: Scope): Promise<Oracle> {
    const folder = await lab.makeFolder("o");
    const data = "size=6g,mode=755";
    await mount({ fsType: "tmpfs", source: "none", target: folder, flags: 0, data });
    scope.defer(() => unmount(folder, { detach: true }));
    for (const name of ["empty", "merged", "lab"]) await mkdir(join(folder, name));
    const within = labWithin(lab, join(folder, "lab"), scope);
    const containerd = await Containerd.start(within, { line: "2" });
    const snapshots = await openSnapshots(containerd);
    scope.defer(() => {
      snapshots.client.close();
    });
    const shell = scope.use(new Shell(lab.env));
    return new Oracle(folder, containerd, snapshots, await buildWalker(folder), shell);
  }

  /** Unpacks all images, then walks them one after the other; a text is why containerd refuses. */
  async *expected(images: readonly BuiltImage[]): AsyncGenerator<Expected | string, undefined> {
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
    return undefined;
  }

  /** The pieces as frames; by the shell, which starts programs faster than we do. */
  async zstd(pieces: readonly Buffer[]): Promise<Buffer> {
    const files = pieces.map((_piece, index) => join(this.folder, `piece${index}`));
    for (const [index, piece] of pieces.entries()) await writeFile(files[index] ?? "", piece);
    await this.#shell.run(["zstd", "-q", "-f", ...files]);
    return Buffer.concat(await Promise.all(files.map(async (file) => readFile(`${file}.zst`))));
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
    const target = join(this.folder, "merged");
    // The empty folder makes an overlay of a single layer, and the root a merged folder always.
    const data = `lowerdir=${lowers}:${join(this.folder, "empty")}`;
    await mount({ fsType: "overlay", source: "overlay", target, flags: 0, data });
    try {
      return parseTree(await this.#shell.run([this.#walker, target]));
    } finally {
      await unmount(target, { detach: false });
      await call(client, "Remove", { snapshotter: "overlayfs", key }, { metadata });
    }
  }

  async #writeArchive(images: readonly BuiltImage[]): Promise<string> {
    const folder = join(this.folder, "oci");
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
    const archive = join(this.folder, "oci.tar");
    await run("tar", ["-C", folder, "-cf", archive, "."]);
    await rm(folder, { recursive: true });
    return archive;
  }
}

/** The lab, but for where it makes folders, and when what is started in it ends. */
function labWithin(lab: Lab, folder: string, scope: Scope): Lab {
  return new Proxy(lab, {
    get: (target, property) => {
      if (property === "use") return scope.use.bind(scope);
      if (property === "defer") return scope.defer.bind(scope);
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
