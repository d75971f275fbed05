/**
 * The life of snapshots: local ones as containerd's overlay snapshotter keeps them, claimed ones
 * whose content is the image provider's. Knows nothing of gRPC.
 */
import { abortReason, raceAbort, throwIfAborted } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import { DaemonError, withContext } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { SingleFlight } from "../base/single-flight.ts";
import { tryParseDigest, parseChainId } from "../oci/index.ts";
import type { ChainId } from "../oci/index.ts";
import { ChainResolver } from "./chain-resolver.ts";
import { claimedName, requestNamespace } from "./claimed-name.ts";
import { Claims } from "./claims.ts";
import type { ClaimDecision } from "./claims.ts";
import type { ContainerdApi } from "./containerd/client.ts";
import { parseFilters, snapshotFields } from "./filters.ts";
import type { ImageProvider } from "./image-provider.ts";
import {
  checkKey,
  checkLabels,
  LABEL_PARENT_CHAIN_ID,
  LABEL_SNAPSHOT_REF,
  LABEL_UID_MAPPING,
} from "./labels.ts";
import { lowerFolders } from "./lower-layers.ts";
import { checkMountPath, composeMounts, mappedRootOwner } from "./mounts.ts";
import type { OverlayFeatures } from "./mounts.ts";
import { detectOverlay } from "./overlay-features.ts";
import { Owner } from "./owner.ts";
import { DEFAULT_ROOT } from "./snapshot-folders.ts";
import type { RootAttributes } from "./snapshot-folders.ts";
import { deleteSetAside } from "./set-aside.ts";
import { Store } from "./store.ts";
import {
  commitActive,
  insertClaim,
  insertSnapshot,
  removeSnapshot,
  requireAbsent,
  requireParent,
  requireSnapshot,
  updateLabels,
} from "./transitions.ts";
import type { CommitInput } from "./transitions.ts";
import type {
  Labels,
  Mount,
  SnapshotInfo,
  SnapshotRecord,
  SnapshotUsage,
} from "./snapshot-info.ts";
import { UsageCounter } from "./usage-counter.ts";

export interface SnapshotterOptions {
  /** Our folder: metastore/, snapshots/ and set-aside/ are made in it. */
  readonly root: string;
  readonly provider: ImageProvider;
  /** Absent: no address is known; then only `cri.*` labels make a pull lazy. */
  readonly containerd: ContainerdApi | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  /** The plugin declares `remap-ids`. */
  readonly remapIds?: boolean;
  /** `host[:port]` of the registries in our configuration (port recovery). */
  readonly configuredHosts?: readonly string[];
  /** containerd's certs.d folders (port recovery). */
  readonly certsFolders?: readonly string[];
  /** How long a Prepare waits for an image's maps, in milliseconds. */
  readonly ensureWaitMs?: number;
}

export interface CreateInput {
  readonly key: string;
  readonly parent: string;
  readonly labels: Labels;
  /** The call's `containerd-namespace` header; empty when there was none. */
  readonly namespace: string;
}

interface CallOptions {
  readonly signal: AbortSignal;
}

export class Snapshotter implements AsyncDisposable {
  readonly #options: SnapshotterOptions;
  readonly #features: OverlayFeatures;
  readonly #claims: Claims;
  readonly #owner: Owner;
  readonly #usage: UsageCounter;
  readonly #retains = new SingleFlight<"retain", void>();
  /** Ends what goes on in the background. */
  readonly #life = new AbortController();
  #store: Store;
  #lastCleanup: Promise<void> = Promise.resolve();
  /** Waits for the last one. */
  #nextCleanup: Promise<void> | undefined;
  /** The provider knows which chains are claimed; until then nothing new is claimed. */
  #isRetained = false;
  /** Chains that lost a snapshot since the last clean-up. */
  readonly #freedChains = new Set<ChainId>();

  private constructor(options: SnapshotterOptions, store: Store, features: OverlayFeatures) {
    const { provider, containerd, clock, log } = options;
    this.#options = options;
    this.#store = store;
    this.#features = features;
    const resolver =
      containerd === undefined
        ? undefined
        : new ChainResolver({
            containerd,
            log,
            configuredHosts: options.configuredHosts ?? [],
            certsFolders: options.certsFolders ?? [],
          });
    this.#claims = new Claims({
      provider,
      resolver,
      clock,
      log,
      ...(options.ensureWaitMs === undefined ? {} : { ensureWaitMs: options.ensureWaitMs }),
    });
    this.#owner = new Owner({ containerd, clock, log, bind: (uuid) => this.#bind(uuid) });
    this.#usage = new UsageCounter(log);
  }

  /**
   * Reads the metastore. What needs containerd or the image provider is begun and not waited for:
   * the former may start after us, the latter's mounts come when they are asked for.
   */
  static async open(options: SnapshotterOptions): Promise<Snapshotter> {
    checkMountPath(options.root);
    const { root, clock, log } = options;
    const [store, kernel] = await Promise.all([Store.open({ root, clock, log }), detectOverlay()]);
    const features = { ...kernel, remapIds: options.remapIds ?? false };
    const snapshotter = new Snapshotter(options, store, features);
    snapshotter.#begin();
    return snapshotter;
  }

  #begin(): void {
    const { signal } = this.#life;
    const report = (event: string) => (error: unknown) => {
      if (!signal.aborted) this.#options.log.warn(event, { err: error });
    };
    this.#owner.check({ signal }).catch(report("snapshots-not-set-aside"));
    this.#retain({ signal }).catch(report("claims-not-retained"));
    this.cleanup({ signal }).catch(report("cleanup-failed"));
  }

  async prepare(input: CreateInput, options: CallOptions): Promise<Mount[]> {
    this.#checkInput(input);
    await this.#owner.check(options);
    const store = this.#store;
    const target = tryParseDigest(input.labels.get(LABEL_SNAPSHOT_REF) ?? "");
    if (target !== undefined) {
      requireAbsent(store.metastore, input.key);
      const name = await this.#claim(store, parseChainId(target), input, options);
      if (name !== undefined) {
        throw new DaemonError("already-exists", `snapshot ${name} holds ${target}`);
      }
    }
    return this.#create(store, "active", input, options);
  }

  async view(input: CreateInput, options: CallOptions): Promise<Mount[]> {
    this.#checkInput(input);
    await this.#owner.check(options);
    return this.#create(this.#store, "view", input, options);
  }

  /** Asks neither the registry nor containerd. */
  async mounts(key: string, options: CallOptions): Promise<Mount[]> {
    const store = this.#store;
    const record = requireSnapshot(store.metastore, key);
    if (record.kind === "committed") {
      throw new DaemonError("failed-precondition", `snapshot ${key} is neither active nor a view`);
    }
    const lowers = await lowerFolders(store, this.#options.provider, record.parent, options);
    return this.#compose(store, record, lowers);
  }

  /** Runs inside containerd's database transaction: quick, and calls nobody. */
  async commit(input: CommitInput): Promise<void> {
    checkKey(input.name, "name");
    checkLabels(input.labels);
    const store = this.#store;
    const record = await store.metastore.transact((transaction) =>
      commitActive(transaction, input),
    );
    this.#usage.countLater(store, record, { signal: this.#life.signal });
  }

  /** Quick; `cleanup` frees the space. */
  async remove(key: string): Promise<void> {
    const store = this.#store;
    const record = await store.metastore.transact((transaction) =>
      removeSnapshot(transaction, key),
    );
    if (record.chainId === undefined) await store.folders.trash(record.id);
    else this.#freedChains.add(record.chainId);
  }

  stat(key: string): SnapshotInfo {
    return requireSnapshot(this.#store.metastore, key);
  }

  async update(input: {
    readonly name: string;
    readonly labels: Labels;
    readonly paths: readonly string[];
  }): Promise<SnapshotInfo> {
    checkLabels(input.labels);
    return this.#store.metastore.transact((transaction) => updateLabels(transaction, input));
  }

  /** Those that any of the filters matches. */
  list(filters: readonly string[]): SnapshotInfo[] {
    const matches = parseFilters(filters);
    const found: SnapshotInfo[] = [];
    for (const record of this.#store.metastore.records()) {
      if (matches(snapshotFields(record))) found.push(record);
    }
    return found;
  }

  async usage(key: string, options: CallOptions): Promise<SnapshotUsage> {
    const store = this.#store;
    return this.#usage.usage(store, requireSnapshot(store.metastore, key), options);
  }

  /**
   * Deletes what was removed and releases the chains that no snapshot claims any more. Goes on when
   * the caller leaves.
   */
  async cleanup({ signal }: CallOptions): Promise<void> {
    // One under way may have passed by what was removed just now: another one follows it.
    this.#nextCleanup ??= this.#lastCleanup.then(async () => {
      this.#nextCleanup = undefined;
      const work = this.#cleanup(this.#life.signal);
      this.#lastCleanup = work.catch(() => undefined);
      await work;
    });
    await raceAbort(this.#nextCleanup, signal);
  }

  /** What is claimed, for status output. */
  claimedChains(): ChainId[] {
    const chains = new Set<ChainId>();
    for (const record of this.#store.metastore.records()) {
      if (record.chainId !== undefined) chains.add(record.chainId);
    }
    return [...chains];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#life.abort(new DaemonError("unavailable", "snapshotter is stopping"));
    await Promise.allSettled([this.#nextCleanup]);
    await this.#lastCleanup;
    await this.#store[Symbol.asyncDispose]();
  }

  #checkInput({ key, labels }: CreateInput): void {
    checkKey(key, "key");
    checkLabels(labels);
    if (this.#life.signal.aborted) throw abortReason(this.#life.signal);
  }

  /** The name of the committed snapshot when the layer is claimed. */
  async #claim(
    store: Store,
    chainId: ChainId,
    input: CreateInput,
    options: CallOptions,
  ): Promise<string | undefined> {
    const { log } = this.#options;
    const parent = requireParent(store.metastore, input.parent);
    const name = claimedName(chainId, input.parent);
    const namespace = requestNamespace(input.namespace, input.key);
    const fields = { chain: chainId, namespace };
    try {
      const known = store.metastore.get(name);
      const decision: ClaimDecision =
        known?.usage !== undefined && known.chainId === chainId
          ? { claimed: true, by: "known-chain", layer: layerOf(chainId, known.usage) }
          : await this.#decide(chainId, parent, { ...input, namespace }, options);
      if (!decision.claimed) {
        log.info("layer-not-claimed", {
          ...fields,
          "remote-snapshot-prepared": "false",
          reason: decision.reason,
          ...(decision.error === undefined ? {} : { err: decision.error }),
        });
        return undefined;
      }
      const { usageBytes: bytes, usageInodes: inodes } = decision.layer;
      const usage = { bytes, inodes };
      const claim = { id: store.metastore.reserveId(), name, chainId, usage };
      await store.metastore.transact((transaction) =>
        insertClaim(transaction, { ...claim, parent: input.parent, labels: input.labels }),
      );
      this.#freedChains.delete(chainId);
      const by = decision.by;
      log.info("layer-claimed", { ...fields, "remote-snapshot-prepared": "true", by });
      return name;
    } catch (error) {
      throwIfAborted(options.signal);
      const reason = "claim-not-recorded";
      log.warn("layer-not-claimed", {
        ...fields,
        "remote-snapshot-prepared": "false",
        reason,
        err: error,
      });
      return undefined;
    }
  }

  async #decide(
    chainId: ChainId,
    parent: SnapshotRecord | undefined,
    input: CreateInput,
    options: CallOptions,
  ): Promise<ClaimDecision> {
    // Parallel unpack prepares upper layers without a parent: a claim would cut the chain.
    if (parent === undefined && input.labels.has(LABEL_PARENT_CHAIN_ID)) {
      return { claimed: false, reason: "parallel-unpack" };
    }
    try {
      await this.#retain(options);
    } catch (error) {
      throwIfAborted(options.signal);
      return { claimed: false, reason: "provider-unavailable", error };
    }
    const isAboveLocal = parent !== undefined && parent.chainId === undefined;
    const { labels, namespace } = input;
    return this.#claims.decide({ chainId, labels, namespace, isAboveLocal }, options);
  }

  async #create(
    store: Store,
    kind: "active" | "view",
    input: CreateInput,
    options: CallOptions,
  ): Promise<Mount[]> {
    const { key, parent, labels } = input;
    requireParent(store.metastore, parent);
    requireAbsent(store.metastore, key);
    const lowers = await lowerFolders(store, this.#options.provider, parent, options);
    const attributes = await this.#rootAttributes(store, labels, lowers);
    throwIfAborted(options.signal);
    const id = store.metastore.reserveId();
    let record: SnapshotRecord;
    try {
      await store.folders.create(id, { withWork: kind === "active", attributes });
      record = await store.metastore.transact((transaction) =>
        insertSnapshot(transaction, { id, kind, key, parent, labels }),
      );
    } catch (error) {
      await store.folders.settle(id, "abandoned");
      throw error;
    }
    await store.folders.settle(id, "recorded");
    return this.#compose(store, record, lowers);
  }

  /** A merged root shows the attributes of its uppermost folder: they are the parent's. */
  async #rootAttributes(
    store: Store,
    labels: Labels,
    lowers: readonly string[],
  ): Promise<RootAttributes> {
    const [nearest] = lowers;
    const inherited =
      nearest === undefined ? DEFAULT_ROOT : await store.folders.rootAttributes(nearest);
    const owner = this.#features.remapIds ? mappedRootOwner(labels) : undefined;
    if (owner === undefined && labels.has(LABEL_UID_MAPPING) && !this.#features.remapIds) {
      this.#options.log.debug("id-map-ignored", { reason: "remap-ids is not configured" });
    }
    return { ...inherited, ...owner };
  }

  #compose(store: Store, record: SnapshotRecord, lowers: readonly string[]): Mount[] {
    return composeMounts(
      {
        kind: record.kind === "view" ? "view" : "active",
        upper: store.folders.upper(record.id),
        work: store.folders.work(record.id),
        lowers,
        labels: record.labels,
      },
      this.#features,
    );
  }

  async #bind(uuid: string): Promise<void> {
    const { metastore } = this.#store;
    if (metastore.owner === uuid) return;
    if (metastore.owner !== undefined && metastore.size > 0) {
      this.#store = await this.#store.setAside();
      this.#isRetained = false;
      this.#freedChains.clear();
    }
    await this.#store.metastore.transact((transaction) => {
      transaction.setOwner(uuid);
    });
  }

  /** Tells the provider once what is claimed; a failed attempt is repeated before a claim. */
  async #retain(options: CallOptions): Promise<void> {
    if (this.#isRetained) return;
    const work = async (signal: AbortSignal): Promise<void> => {
      try {
        await this.#options.provider.retain(this.claimedChains(), { signal });
      } catch (error) {
        throw withContext(error, "cannot tell the image service which chains are claimed");
      }
      this.#isRetained = true;
    };
    await this.#retains.run("retain", work, options);
  }

  async #cleanup(signal: AbortSignal): Promise<void> {
    const { folders } = this.#store;
    await folders.emptyTrash({ signal });
    const { root, clock, log } = this.#options;
    await deleteSetAside(root, { clock, log, signal });
    const claimed = new Set(this.claimedChains());
    for (const chainId of [...this.#freedChains]) {
      if (!claimed.has(chainId)) {
        try {
          await this.#options.provider.release(chainId, { signal });
        } catch (error) {
          throwIfAborted(signal);
          // Kept for the next clean-up; at the latest `retain` at the next start frees it.
          this.#options.log.warn("chain-not-released", { chain: chainId, err: error });
          continue;
        }
      }
      this.#freedChains.delete(chainId);
    }
  }
}

function layerOf(
  chainId: ChainId,
  usage: SnapshotUsage,
): { readonly chainId: ChainId; readonly usageBytes: number; readonly usageInodes: number } {
  return { chainId, usageBytes: usage.bytes, usageInodes: usage.inodes };
}
