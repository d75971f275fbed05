/**
 * Whether the layer that a Prepare wants can be had without its blob, and from which image.
 *
 * In this order: the chain is known already (its maps are complete); the client named the image in
 * `cri.*` labels; the image is found in containerd's content store. Whatever goes wrong is a
 * reason to unpack the layer as usual, never a failed pull.
 */
import { abortReason, throwIfAborted } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import { DaemonError, errorCode } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { tryParseDigest } from "../oci/index.ts";
import type { ChainId } from "../oci/index.ts";
import type { ChainResolver } from "./chain-resolver.ts";
import type { ImageProvider, ImageRequest, ProvidedLayer } from "./image-provider.ts";
import { LABEL_IMAGE_REF, LABEL_MANIFEST_DIGEST } from "./labels.ts";
import {
  DECLINED_IMAGE_MS,
  DECLINED_IMAGES_MAX,
  ENSURE_WAIT_MS,
  MANIFEST_TRIES_MAX,
} from "./limits.ts";
import type { Labels } from "./snapshot-info.ts";

export interface ClaimRequest {
  readonly chainId: ChainId;
  readonly labels: Labels;
  readonly namespace: string;
  /** The parent is a layer that fell through: containerd fetches all above it anyhow. */
  readonly isAboveLocal: boolean;
}

/** Values of the log field `reason` of `layer-not-claimed`; documented for users. */
export type DeclineReason =
  | "chain-not-in-image"
  | "content-store-unreadable"
  | "image-not-lazy"
  | "layer-below-not-claimed"
  | "no-distribution-source-label"
  | "no-manifest-lists-the-chain"
  | "parallel-unpack"
  | "provider-unavailable";

export type ClaimDecision =
  | {
      readonly claimed: true;
      readonly layer: ProvidedLayer;
      readonly by: "known-chain" | "cri-labels" | "content-store";
    }
  | { readonly claimed: false; readonly reason: DeclineReason; readonly error?: unknown };

interface Options {
  readonly provider: ImageProvider;
  /** Absent: containerd's socket is not known, so only labels help. */
  readonly resolver: ChainResolver | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  readonly ensureWaitMs?: number;
}

interface Declined {
  readonly untilMs: number;
}

export class Claims {
  readonly #options: Options;
  /** Images that fell through lately, by manifest digest or reference. */
  readonly #declined = new Map<string, Declined>();

  constructor(options: Options) {
    this.#options = options;
  }

  /** Throws only when the caller has left. */
  async decide(
    request: ClaimRequest,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<ClaimDecision> {
    throwIfAborted(signal);
    try {
      const layer = await this.#options.provider.knows(request.chainId, { signal });
      if (layer !== undefined) return { claimed: true, layer, by: "known-chain" };
    } catch (error) {
      throwIfAborted(signal);
      return { claimed: false, reason: "provider-unavailable", error };
    }
    try {
      return request.labels.has(LABEL_IMAGE_REF)
        ? await this.#byLabels(request, signal)
        : await this.#byContentStore(request, signal);
    } catch (error) {
      throwIfAborted(signal);
      return { claimed: false, reason: "content-store-unreadable", error };
    }
  }

  async #byLabels(request: ClaimRequest, signal: AbortSignal): Promise<ClaimDecision> {
    const { chainId, labels, namespace } = request;
    const manifestDigest = tryParseDigest(labels.get(LABEL_MANIFEST_DIGEST) ?? "");
    const image: ImageRequest = {
      reference: labels.get(LABEL_IMAGE_REF) ?? "",
      manifestDigest,
      chainId,
      manifest: undefined,
      config: undefined,
      platform: undefined,
      alternatives: [],
    };
    if (this.#isDeclined(image, request)) {
      return { claimed: false, reason: "layer-below-not-claimed" };
    }
    // Two requests to the registry less; without containerd it works all the same.
    const documents =
      manifestDigest === undefined
        ? undefined
        : await this.#options.resolver
            ?.documents(manifestDigest, namespace, { signal })
            .catch((error: unknown) => {
              throwIfAborted(signal);
              this.#options.log.debug("content-store-unreadable", { err: error });
              return undefined;
            });
    return this.#ensure({ ...image, ...documents }, "cri-labels", signal);
  }

  async #byContentStore(request: ClaimRequest, signal: AbortSignal): Promise<ClaimDecision> {
    const { chainId, namespace } = request;
    const { resolver } = this.#options;
    let decision: ClaimDecision = { claimed: false, reason: "no-manifest-lists-the-chain" };
    if (resolver === undefined) return decision;
    let tries = 0;
    for await (const candidate of resolver.candidates(chainId, namespace, { signal })) {
      if (candidate.kind === "no-source") {
        if (tries === 0) decision = { claimed: false, reason: "no-distribution-source-label" };
        continue;
      }
      if (this.#isDeclined(candidate.image, request)) {
        return { claimed: false, reason: "layer-below-not-claimed" };
      }
      decision = await this.#ensure(candidate.image, "content-store", signal);
      tries += 1;
      if (decision.claimed || tries === MANIFEST_TRIES_MAX) break;
    }
    return decision;
  }

  async #ensure(
    image: ImageRequest,
    by: "cri-labels" | "content-store",
    signal: AbortSignal,
  ): Promise<ClaimDecision> {
    const { provider, clock, ensureWaitMs } = this.#options;
    const waitMs = ensureWaitMs ?? ENSURE_WAIT_MS;
    const limit = new AbortController();
    const stop = clock.timer(waitMs, () => {
      limit.abort(new DaemonError("deadline-exceeded", `image not ready after ${waitMs} ms`));
    });
    try {
      const either = AbortSignal.any([signal, limit.signal]);
      const layers = await provider.ensure(image, { signal: either });
      const layer = layers.find((one) => one.chainId === image.chainId);
      if (layer !== undefined) {
        this.#declined.delete(imageKey(image));
        return { claimed: true, layer, by };
      }
      this.#remember(image);
      return { claimed: false, reason: "chain-not-in-image" };
    } catch (error) {
      // The work goes on; the caller's retry joins it.
      throwIfAborted(signal);
      this.#remember(image);
      const cause = limit.signal.aborted ? abortReason(limit.signal) : error;
      const isAway = errorCode(cause) === "unavailable";
      return {
        claimed: false,
        reason: isAway ? "provider-unavailable" : "image-not-lazy",
        error: cause,
      };
    } finally {
      stop();
    }
  }

  /**
   * Once one layer has fallen through, containerd fetches that and all above: asking the registry
   * again for each of them would only slow the pull down. A new pull begins at the bottom.
   */
  #isDeclined(image: ImageRequest, { isAboveLocal }: ClaimRequest): boolean {
    const key = imageKey(image);
    const declined = this.#declined.get(key);
    if (!isAboveLocal || declined === undefined) return false;
    if (this.#options.clock.nowMs() > declined.untilMs) {
      this.#declined.delete(key);
      return false;
    }
    this.#remember(image);
    return true;
  }

  #remember(image: ImageRequest): void {
    const key = imageKey(image);
    this.#declined.delete(key);
    this.#declined.set(key, { untilMs: this.#options.clock.nowMs() + DECLINED_IMAGE_MS });
    for (const oldest of this.#declined.keys()) {
      if (this.#declined.size <= DECLINED_IMAGES_MAX) break;
      this.#declined.delete(oldest);
    }
  }
}

function imageKey(image: ImageRequest): string {
  return image.manifestDigest ?? image.reference;
}
