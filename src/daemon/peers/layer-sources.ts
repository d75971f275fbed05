/**
 * A layer's sources where there are peers: first the trees of the images that have it, then the
 * registry, which only a tree's root reads without asking.
 */
import type { Clock } from "../../base/clock.ts";
import { errorCode } from "../../base/errors.ts";
import { FETCH_PRIORITY, passError } from "../../block/index.ts";
import type {
  BlobRun,
  Block,
  BlockSource,
  FetchPriority,
  SourceFetchOptions,
  SourceReadiness,
} from "../../block/index.ts";
import type { Digest } from "../../oci/index.ts";
import type { TreePosition, TreeSource } from "../../peer/index.ts";
import type { RegistryTokens } from "./registry-tokens.ts";
import type { TreeImages } from "./tree-images.ts";

/**
 * For the first position in a tree; then the registry is read as by a node alone. A manager that
 * may have forgotten a tree waits 2 s for its members, and who hears nobody for 3 s is alone: that
 * is a position too. Longer only where processes wait for a processor.
 */
export const JOIN_MS_MAX = 15_000;

export interface LayerSourceParts {
  readonly images: Pick<TreeImages, "imagesWith" | "joinedMs">;
  readonly position: (image: string) => TreePosition | undefined;
  readonly tokens: Pick<RegistryTokens, "readiness" | "spend">;
  readonly clock: Clock;
}

export interface GuardedLayer {
  /** Diff ID, hex. */
  readonly id: string;
  /** Whether members give its blocks to each other. */
  readonly isRelayed: boolean;
}

/** The image through whose tree a layer is read now, and what that tree says. */
type Standing =
  | { readonly kind: "alone" }
  | { readonly kind: "root" }
  | { readonly kind: "joining"; readonly untilMs: number }
  | { readonly kind: "member"; readonly image: Digest };

/** A tree that has a place for us goes before one that we are just joining. */
function standingOf(layerId: string, parts: LayerSourceParts): Standing {
  let joining: Standing | undefined;
  let member: Standing | undefined;
  for (const image of parts.images.imagesWith(layerId)) {
    const position = parts.position(image);
    if (position?.isRoot === true) return { kind: "root" };
    if (position !== undefined) {
      member ??= { kind: "member", image };
      continue;
    }
    const untilMs = (parts.images.joinedMs(image) ?? -Infinity) + JOIN_MS_MAX;
    if (untilMs > parts.clock.nowMs()) joining ??= { kind: "joining", untilMs };
  }
  return member ?? joining ?? { kind: "alone" };
}

/** All trees of a layer as one source. */
export class TreesSource implements BlockSource {
  readonly name = "parent";
  readonly origin: string;
  readonly #layerId: string;
  readonly #parts: LayerSourceParts;
  readonly #open: (image: Digest) => TreeSource;
  readonly #sources = new Map<Digest, TreeSource>();
  readonly #askedOf = new WeakMap<BlobRun, TreeSource>();

  constructor(layerId: string, parts: LayerSourceParts, open: (image: Digest) => TreeSource) {
    this.origin = `tree ${layerId}`;
    this.#layerId = layerId;
    this.#parts = parts;
    this.#open = open;
  }

  readiness(): SourceReadiness {
    const standing = standingOf(this.#layerId, this.#parts);
    if (standing.kind === "joining") return { untilMs: standing.untilMs };
    if (standing.kind !== "member") return "skip";
    return this.#source(standing.image).hasPeers ? "ready" : "skip";
  }

  async fetch(run: BlobRun, options: SourceFetchOptions): Promise<AsyncIterable<Uint8Array>> {
    const standing = standingOf(this.#layerId, this.#parts);
    if (standing.kind !== "member") throw passError("no member is above us");
    const source = this.#source(standing.image);
    this.#askedOf.set(run, source);
    try {
      return passing(await source.fetch(run, options));
    } catch (error) {
      throw passed(error);
    }
  }

  onBadBlock(run: BlobRun, block: Block): void {
    this.#askedOf.get(run)?.onBadBlock(run, block);
  }

  #source(image: Digest): TreeSource {
    const known = this.#sources.get(image);
    if (known !== undefined) return known;
    const source = this.#open(image);
    this.#sources.set(image, source);
    return source;
  }
}

/** That nobody above has a block now is not the tree's fault. */
function passed(error: unknown): unknown {
  if (errorCode(error) !== "unavailable") return error;
  return passError("no member above us has the block", { cause: error });
}

async function* passing(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* stream;
  } catch (error) {
    throw passed(error);
  }
}

/**
 * A registry that only the root, or who is in no tree, reads freely. Other members read it for a
 * reader that waits, with a token, and for layers whose blocks do not travel through trees.
 */
export class GuardedSource implements BlockSource {
  readonly #inner: BlockSource;
  readonly #layer: GuardedLayer;
  readonly #parts: LayerSourceParts;

  constructor(inner: BlockSource, layer: GuardedLayer, parts: LayerSourceParts) {
    this.#inner = inner;
    this.#layer = layer;
    this.#parts = parts;
  }

  get isScarce(): boolean {
    return this.#layer.isRelayed && standingOf(this.#layer.id, this.#parts).kind === "member";
  }

  get name(): string {
    return this.#inner.name;
  }

  get origin(): string {
    return this.#inner.origin;
  }

  readiness(priority: FetchPriority): SourceReadiness {
    const standing = standingOf(this.#layer.id, this.#parts);
    if (standing.kind === "joining") return { untilMs: standing.untilMs };
    if (standing.kind === "member" && this.#layer.isRelayed) {
      if (priority !== FETCH_PRIORITY.reader) return "skip";
      return this.#parts.tokens.readiness(standing.image);
    }
    return this.#inner.readiness?.(priority) ?? "ready";
  }

  async fetch(run: BlobRun, options: SourceFetchOptions): Promise<AsyncIterable<Uint8Array>> {
    const standing = standingOf(this.#layer.id, this.#parts);
    if (standing.kind === "member") {
      this.#parts.tokens.spend(standing.image, run.range.end - run.range.start);
    }
    return this.#inner.fetch(run, options);
  }

  onBadBlock(run: BlobRun, block: Block): void {
    this.#inner.onBadBlock?.(run, block);
  }
}
