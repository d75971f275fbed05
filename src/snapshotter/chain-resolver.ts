/**
 * Which image a chain ID belongs to, when the client does not say: found in containerd's content
 * store, which holds manifest and config before the first layer is prepared.
 */
import { readdir } from "node:fs/promises";
import { throwIfAborted } from "../base/abort.ts";
import { systemErrorName } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import {
  chainIds,
  formatPlatform,
  parseImageConfig,
  parseImageManifest,
  verifyContent,
} from "../oci/index.ts";
import type { ChainId, Digest } from "../oci/index.ts";
import type { ContainerdApi, ContentInfo } from "./containerd/client.ts";
import type { ImageRequest } from "./image-provider.ts";
import { CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX, MANIFEST_MEMORY } from "./limits.ts";
import { distributionSources, sourceCandidates } from "./source-candidates.ts";
import type { KnownHosts } from "./source-candidates.ts";

export interface ChainResolverOptions {
  readonly containerd: ContainerdApi;
  readonly log: Logger;
  /** `host[:port]` of the registries that we are configured for. */
  readonly configuredHosts: readonly string[];
  /** certs.d folders, as containerd's `config_path`. */
  readonly certsFolders: readonly string[];
}

interface KnownManifest {
  readonly chains: ReadonlySet<ChainId>;
  readonly platform: string | undefined;
}

/** A manifest that holds the chain: an image to ensure, or why it cannot be one. */
export type ChainCandidate =
  | { readonly kind: "image"; readonly image: ImageRequest }
  | { readonly kind: "no-source"; readonly manifest: Digest };

export class ChainResolver {
  readonly #options: ChainResolverOptions;
  /** By manifest digest, least recently used first; undefined: no image that can be mounted. */
  readonly #manifests = new Map<Digest, KnownManifest | undefined>();

  constructor(options: ChainResolverOptions) {
    this.#options = options;
  }

  /**
   * The images that hold the chain, newest first, found while they are asked for: that of a pull
   * under way is the newest. `namespace` is empty when the request named none: then all are
   * searched.
   */
  async *candidates(
    chainId: ChainId,
    namespace: string,
    { signal }: { readonly signal: AbortSignal },
  ): AsyncGenerator<ChainCandidate, void, undefined> {
    const { containerd } = this.#options;
    const namespaces = namespace === "" ? await containerd.namespaces({ signal }) : [namespace];
    for (const one of namespaces) {
      const infos = await containerd.manifests(one, { signal });
      for (const info of infos.toSorted((a, b) => compareNs(b.createdNs, a.createdNs))) {
        throwIfAborted(signal);
        const known = await this.#manifest(info.digest, one, signal);
        if (known?.chains.has(chainId) !== true) continue;
        const image = await this.#request(chainId, one, info, signal);
        yield image === undefined
          ? { kind: "no-source", manifest: info.digest }
          : { kind: "image", image: { ...image, platform: known.platform } };
      }
    }
  }

  /** An image whose manifest is named: its bytes, as far as containerd has them. */
  async documents(
    digest: Digest,
    namespace: string,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<Pick<ImageRequest, "manifest" | "config">> {
    const manifest = await this.#read(namespace, digest, MANIFEST_BYTES_MAX, signal);
    if (manifest === undefined) return { manifest: undefined, config: undefined };
    const { config } = parseImageManifest(manifest);
    return {
      manifest,
      config: await this.#read(namespace, config.digest, CONFIG_BYTES_MAX, signal),
    };
  }

  async #manifest(
    digest: Digest,
    namespace: string,
    signal: AbortSignal,
  ): Promise<KnownManifest | undefined> {
    if (this.#manifests.has(digest)) return this.#remember(digest, this.#manifests.get(digest));
    let known: KnownManifest | undefined;
    try {
      known = await this.#readManifest(digest, namespace, signal);
      // The config may still be on its way: then nothing is remembered.
      if (known === undefined) return undefined;
    } catch (error) {
      throwIfAborted(signal);
      // Another image's broken manifest is not this request's failure.
      this.#options.log.debug("manifest-unreadable", { manifest: digest, err: error });
    }
    return this.#remember(digest, known);
  }

  /** Most recently used last. */
  #remember(digest: Digest, known: KnownManifest | undefined): KnownManifest | undefined {
    this.#manifests.delete(digest);
    this.#manifests.set(digest, known);
    for (const oldest of this.#manifests.keys()) {
      if (this.#manifests.size <= MANIFEST_MEMORY) break;
      this.#manifests.delete(oldest);
    }
    return known;
  }

  async #readManifest(
    digest: Digest,
    namespace: string,
    signal: AbortSignal,
  ): Promise<KnownManifest | undefined> {
    const manifestBytes = await this.#read(namespace, digest, MANIFEST_BYTES_MAX, signal);
    if (manifestBytes === undefined) return undefined;
    const manifest = parseImageManifest(manifestBytes);
    const { digest: config } = manifest.config;
    const configBytes = await this.#read(namespace, config, CONFIG_BYTES_MAX, signal);
    if (configBytes === undefined) return undefined;
    const { diffIds, platform } = parseImageConfig(configBytes);
    return {
      chains: new Set(chainIds(diffIds)),
      platform: platform === undefined ? undefined : formatPlatform(platform),
    };
  }

  async #request(
    chainId: ChainId,
    namespace: string,
    { digest, labels }: ContentInfo,
    signal: AbortSignal,
  ): Promise<ImageRequest | undefined> {
    const sources = distributionSources(labels);
    if (sources.length === 0) return undefined;
    const hosts = await this.#knownHosts(namespace, signal);
    const [best, ...alternatives] = sourceCandidates(sources, hosts);
    if (best === undefined) return undefined;
    const documents = await this.documents(digest, namespace, { signal });
    return {
      reference: `${best}@${digest}`,
      manifestDigest: digest,
      chainId,
      ...documents,
      platform: undefined,
      alternatives,
    };
  }

  async #knownHosts(namespace: string, signal: AbortSignal): Promise<KnownHosts> {
    const { containerd, configuredHosts, certsFolders, log } = this.#options;
    const imageNames = await containerd
      .imageNames(namespace, { signal })
      .catch((error: unknown) => {
        throwIfAborted(signal);
        log.debug("image-records-unreadable", { namespace, err: error });
        return [];
      });
    const folders = await Promise.all(certsFolders.map((folder) => listFolder(folder)));
    return { imageNames, configured: configuredHosts, certsFolders: folders.flat() };
  }

  /** Content by digest, checked; containerd's store is not beyond a disk's errors either. */
  async #read(
    namespace: string,
    digest: Digest,
    bytesMax: number,
    signal: AbortSignal,
  ): Promise<Uint8Array | undefined> {
    const { containerd } = this.#options;
    const bytes = await containerd.readContent(namespace, digest, { signal, bytesMax });
    if (bytes !== undefined) verifyContent(bytes, { digest });
    return bytes;
  }
}

async function listFolder(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (["ENOENT", "ENOTDIR", "EACCES"].includes(systemErrorName(error) ?? "")) return [];
    throw error;
  }
}

function compareNs(a: bigint, b: bigint): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
