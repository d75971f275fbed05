/**
 * What the snapshotter needs from the image service; declared here, supplied by the daemon.
 * The messages are those of control.proto, service Image.
 */
import type { ChainId, Digest } from "../oci/index.ts";

export interface ImageRequest {
  /** As the client gave it, or `host[:port]/repository@digest`. */
  readonly reference: string;
  readonly manifestDigest: Digest | undefined;
  /** A chain that the image must hold. */
  readonly chainId: ChainId;
  /** Their bytes, when containerd's content store has them: saves two requests. */
  readonly manifest: Uint8Array | undefined;
  readonly config: Uint8Array | undefined;
  /** `os/arch[/variant]`; undefined: this machine's. */
  readonly platform: string | undefined;
  /** Other `host[:port]/repository` to try, best first. */
  readonly alternatives: readonly string[];
}

export interface ProvidedLayer {
  readonly chainId: ChainId;
  /** The most that the layer may occupy on this disk. */
  readonly usageBytes: number;
  readonly usageInodes: number;
}

export interface ImageProvider {
  /**
   * Resolves once the maps of *all* layers of the image are complete (bottom first), so that each
   * can be claimed; rejects when one cannot be (unknown media type, encrypted, registry down, …).
   * An aborted call leaves at once; the work goes on, and the next call for the image joins it.
   */
  ensure(
    image: ImageRequest,
    options: { readonly signal: AbortSignal },
  ): Promise<readonly ProvidedLayer[]>;

  /** The top layer of a chain that can be mounted without asking anybody, else undefined. */
  knows(
    chainId: ChainId,
    options: { readonly signal: AbortSignal },
  ): Promise<ProvidedLayer | undefined>;

  /** Mounts the chain where it is not mounted yet: one folder with all its layers merged. */
  mount(chainId: ChainId, options: { readonly signal: AbortSignal }): Promise<string>;

  /** No snapshot uses the chain any more. */
  release(chainId: ChainId, options: { readonly signal: AbortSignal }): Promise<void>;

  /** The chains that are claimed; all others may be forgotten. Called at start. */
  retain(chainIds: readonly ChainId[], options: { readonly signal: AbortSignal }): Promise<void>;
}
