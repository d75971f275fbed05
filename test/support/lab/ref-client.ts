/**
 * A client of containerd that pulls as nerdctl does with a snapshotter that it does not know: the
 * unpacker's order of calls, and of all labels only `containerd.io/snapshot.ref`. What the image is
 * stands in the content store alone.
 */
import { Metadata, status } from "@grpc/grpc-js";
import type { ServiceError } from "@grpc/grpc-js";
import { createHash, randomBytes } from "node:crypto";
import { join } from "node:path";
import { call, loadServices, openClient, type DynamicClient, type Message } from "./grpc.ts";
import type { Lab } from "./lab.ts";
import { chainIdsOf } from "./oracle.ts";
import { containerdProtoFolder } from "./paths.ts";

const SERVICES = ["content", "images", "snapshots", "diff", "leases"] as const;
type ServiceName = (typeof SERVICES)[number];
const WRITE_BYTES = 1024 * 1024;
const ACCEPT = [
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
].join(", ");

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

interface Manifest {
  readonly mediaType?: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

export interface RefPullResult {
  /** Layers that the snapshotter answered for (AlreadyExists): nothing of them was fetched. */
  readonly claimed: number;
  readonly unpacked: number;
  readonly chainIds: readonly string[];
}

function grpcCode(error: unknown): number | undefined {
  const cause = error instanceof Error ? (error.cause as Partial<ServiceError>) : undefined;
  return cause?.code;
}

function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** Source: containerd core/images SetChildrenMappedLabels. */
function childLabels(manifest: Manifest): Record<string, string> {
  const labels: Record<string, string> = {
    "containerd.io/gc.ref.content.config": manifest.config.digest,
  };
  manifest.layers.forEach((layer, at) => {
    labels[`containerd.io/gc.ref.content.l.${at}`] = layer.digest;
  });
  return labels;
}

class Pull {
  readonly #clients: Readonly<Record<ServiceName, DynamicClient>>;
  readonly #metadata = new Metadata();
  readonly #base: string;
  readonly #snapshotter: string;
  /** On every blob. Source: containerd's AppendDistributionSourceLabel: the port is lost. */
  readonly #source: Readonly<Record<string, string>>;

  constructor(
    clients: Readonly<Record<ServiceName, DynamicClient>>,
    host: string,
    repository: string,
    snapshotter: string,
  ) {
    this.#clients = clients;
    this.#metadata.set("containerd-namespace", "default");
    this.#base = `http://${host}/v2/${repository}`;
    this.#snapshotter = snapshotter;
    this.#source = {
      [`containerd.io/distribution.source.${host.replace(/:\d+$/, "")}`]: repository,
    };
  }

  async #call(service: ServiceName, method: string, request: Message): Promise<Message> {
    return call(this.#clients[service], method, request, { metadata: this.#metadata });
  }

  async #fetch(path: string): Promise<{ bytes: Buffer; mediaType: string }> {
    const response = await fetch(`${this.#base}/${path}`, { headers: { accept: ACCEPT } });
    if (!response.ok) throw new Error(`GET ${path}: ${response.status}`);
    const mediaType = response.headers.get("content-type") ?? "";
    return { bytes: Buffer.from(await response.arrayBuffer()), mediaType };
  }

  /** Source: containerd's content.WriteBlob over the Write stream. */
  async #store(bytes: Buffer, labels: Readonly<Record<string, string>> = {}): Promise<string> {
    const digest = sha256(bytes);
    const client = this.#clients.content as unknown as {
      Write(metadata: Metadata): NodeJS.ReadWriteStream;
    };
    const stream = client.Write(this.#metadata);
    await new Promise<void>((resolve, reject) => {
      stream.on("error", (error: ServiceError) => {
        if (error.code === status.ALREADY_EXISTS) resolve();
        else reject(error);
      });
      stream.on("data", () => undefined);
      stream.on("end", resolve);
      const write = (message: Message): void => {
        stream.write(message as unknown as string);
      };
      const ref = `lab-${digest}`;
      for (let offset = 0; offset < bytes.length; offset += WRITE_BYTES) {
        const data = bytes.subarray(offset, offset + WRITE_BYTES);
        write({ action: "WRITE", ref, total: bytes.length, expected: digest, offset, data });
      }
      const all = { ...this.#source, ...labels };
      const end = { offset: bytes.length, total: bytes.length, expected: digest, labels: all };
      write({ action: "COMMIT", ref, ...end });
      stream.end();
    });
    return digest;
  }

  async run(reference: string): Promise<RefPullResult> {
    const lease = `lab-${randomBytes(6).toString("hex")}`;
    await this.#call("leases", "Create", { id: lease, labels: {} });
    this.#metadata.set("containerd-lease", lease);
    try {
      return await this.#pull(reference);
    } finally {
      this.#metadata.remove("containerd-lease");
      await this.#call("leases", "Delete", { id: lease, sync: true });
    }
  }

  async #pull(reference: string): Promise<RefPullResult> {
    const fetched = await this.#fetch("manifests/1");
    const manifest = JSON.parse(fetched.bytes.toString("utf8")) as Manifest;
    const digest = await this.#store(fetched.bytes, childLabels(manifest));
    const config = await this.#fetch(`blobs/${manifest.config.digest}`);
    await this.#store(config.bytes);
    const { rootfs } = JSON.parse(config.bytes.toString("utf8")) as {
      rootfs: { diff_ids: string[] };
    };
    const chainIds = chainIdsOf(rootfs.diff_ids);
    let claimed = 0;
    for (const [at, chainId] of chainIds.entries()) {
      const parent = chainIds[at - 1] ?? "";
      const layer = manifest.layers[at];
      if (layer === undefined) throw new Error("fewer layers than diff IDs");
      if (await this.#unpack(chainId, parent, layer)) claimed += 1;
    }
    await this.#call("content", "Update", {
      info: {
        digest: manifest.config.digest,
        labels: { [`containerd.io/gc.ref.snapshot.${this.#snapshotter}`]: chainIds.at(-1) },
      },
      update_mask: { paths: [`labels.containerd.io/gc.ref.snapshot.${this.#snapshotter}`] },
    });
    const target = { media_type: fetched.mediaType, digest, size: fetched.bytes.length };
    await this.#call("images", "Create", { image: { name: reference, target } });
    return { claimed, unpacked: chainIds.length - claimed, chainIds };
  }

  /** One layer. Source: containerd's core/unpack: Prepare, and fetch only when it gives mounts. */
  async #unpack(chainId: string, parent: string, layer: Descriptor): Promise<boolean> {
    const snapshotter = this.#snapshotter;
    const stat = async (): Promise<boolean> =>
      this.#call("snapshots", "Stat", { snapshotter, key: chainId }).then(
        () => true,
        (error: unknown) => {
          if (grpcCode(error) === status.NOT_FOUND) return false;
          throw error;
        },
      );
    const key = `extract-${process.hrtime.bigint() % 1_000_000_000n}-lab0 ${chainId}`;
    const labels = { "containerd.io/snapshot.ref": chainId };
    let mounts: unknown;
    try {
      const prepared = await this.#call("snapshots", "Prepare", {
        snapshotter,
        key,
        parent,
        labels,
      });
      mounts = prepared["mounts"];
    } catch (error) {
      if (grpcCode(error) !== status.ALREADY_EXISTS) throw error;
      if (await stat()) return true;
      throw new Error(`claimed, but not there: ${chainId}`, { cause: error });
    }
    await this.#store((await this.#fetch(`blobs/${layer.digest}`)).bytes);
    const diff = { media_type: layer.mediaType, digest: layer.digest, size: layer.size };
    await this.#call("diff", "Apply", { diff, mounts });
    await this.#call("snapshots", "Commit", { snapshotter, name: chainId, key, labels });
    return false;
  }
}

/** Pulls `host:port/repository:1` through the containerd at a socket. */
export async function pullByRef(
  lab: Lab,
  socket: string,
  reference: string,
  snapshotter: string,
): Promise<RefPullResult> {
  const api = "github.com/containerd/containerd/api/services";
  const service = await loadServices(
    SERVICES.map((name) => join(containerdProtoFolder, api, name, "v1", `${name}.proto`)),
    [containerdProtoFolder],
  );
  const open = (name: ServiceName): DynamicClient => {
    const type = `${(name[0] ?? "").toUpperCase()}${name.slice(1)}`;
    const client = openClient(service(`containerd.services.${name}.v1.${type}`), socket);
    lab.defer(() => {
      client.close();
    });
    return client;
  };
  const clients = {
    content: open("content"),
    images: open("images"),
    snapshots: open("snapshots"),
    diff: open("diff"),
    leases: open("leases"),
  };
  const [, host = "", repository = ""] = /^([^/]+)\/(.+):1$/.exec(reference) ?? [];
  return new Pull(clients, host, repository, snapshotter).run(reference);
}
