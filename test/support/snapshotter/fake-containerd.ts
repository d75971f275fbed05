/** containerd's content store and image records, declared by the test. */
import { DaemonError } from "../../../src/base/errors.ts";
import { chainIds, digestOf, parseDiffId } from "../../../src/oci/index.ts";
import type { ChainId, Digest } from "../../../src/oci/index.ts";
import type { ContainerdApi, ContentInfo } from "../../../src/snapshotter/index.ts";

export interface FakeImage {
  readonly manifest: Digest;
  readonly chains: readonly ChainId[];
}

export class FakeContainerd implements ContainerdApi {
  isConnected = true;
  uuidNow = "uuid-1";
  /** How often each method was called. */
  readonly counts = new Map<string, number>();
  failure: DaemonError | undefined;
  readonly images: string[] = [];
  readonly #blobs = new Map<Digest, Buffer>();
  readonly #manifests = new Map<string, ContentInfo[]>();

  /** An image whose layers are named by their seeds. */
  add(input: {
    readonly seeds: readonly string[];
    readonly namespace?: string;
    readonly labels?: ReadonlyMap<string, string>;
    readonly createdNs?: bigint;
    readonly compression?: string;
  }): FakeImage {
    const { seeds, namespace = "default", labels = new Map(), createdNs = 1n } = input;
    const diffIds = seeds.map((seed) => parseDiffId(digestOf(Buffer.from(seed))));
    const config = this.#store({
      os: "linux",
      architecture: "amd64",
      rootfs: { type: "layers", diff_ids: diffIds },
    });
    const mediaType = `application/vnd.oci.image.layer.v1.tar+${input.compression ?? "gzip"}`;
    const layers = seeds.map((seed) => ({
      mediaType,
      digest: digestOf(Buffer.from(`${seed} blob`)),
      size: 1,
    }));
    const manifest = this.#store({
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: config, size: 1 },
      layers,
    });
    const infos = this.#manifests.get(namespace) ?? [];
    infos.push({ digest: manifest, bytes: 1, createdNs, labels });
    this.#manifests.set(namespace, infos);
    return { manifest, chains: chainIds(diffIds) };
  }

  /** Bytes that are no manifest, or whose digest is wrong. */
  addBroken(bytes: Buffer, digest: Digest = digestOf(bytes)): void {
    this.#blobs.set(digest, bytes);
    const infos = this.#manifests.get("default") ?? [];
    infos.push({ digest, bytes: 1, createdNs: 1_000_000n, labels: new Map() });
    this.#manifests.set("default", infos);
  }

  remove(digest: Digest): void {
    this.#blobs.delete(digest);
  }

  #store(document: object): Digest {
    const bytes = Buffer.from(JSON.stringify(document));
    const digest = digestOf(bytes);
    this.#blobs.set(digest, bytes);
    return digest;
  }

  async #called<T>(name: string, answer: () => T): Promise<T> {
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
    await Promise.resolve();
    if (this.failure !== undefined) throw this.failure;
    return answer();
  }

  uuid(): Promise<string> {
    return this.#called("uuid", () => this.uuidNow);
  }

  namespaces(): Promise<readonly string[]> {
    return this.#called("namespaces", () => [...this.#manifests.keys()]);
  }

  manifests(namespace: string): Promise<readonly ContentInfo[]> {
    return this.#called("manifests", () => this.#manifests.get(namespace) ?? []);
  }

  readContent(
    _namespace: string,
    digest: Digest,
    { bytesMax }: { readonly bytesMax: number },
  ): Promise<Uint8Array | undefined> {
    return this.#called("readContent", () => {
      const bytes = this.#blobs.get(digest);
      if (bytes !== undefined && bytes.length > bytesMax) {
        throw new DaemonError("resource-exhausted", "too large");
      }
      return bytes;
    });
  }

  imageNames(): Promise<readonly string[]> {
    return this.#called("imageNames", () => this.images);
  }
}
