/**
 * Manifests and configs once for the whole cluster: of each repository one member is the owner,
 * which alone asks the registry for them; all others ask the owner. Who cannot be helped there asks
 * the registry with its own credentials, and while no registry answers, whoever has seen it.
 */
import { LRUCache } from "lru-cache";
import { raceAbort, throwIfAborted } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import { DaemonError, errorCode, errorMessage } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { SingleFlight } from "../../base/single-flight.ts";
import type { Digest } from "../../oci/index.ts";
import type {
  DocumentName,
  DocumentQuestion,
  DocumentReply,
  PeerRef,
  RankedMembers,
  SharedDocument,
  SharedDocumentProvider,
} from "../../peer/index.ts";
import { checkedDocument } from "./checked-document.ts";
import type { DocumentCache } from "./document-cache.ts";

/** A node that has just started does not know the members yet: it looks again so often… */
export const JOIN_LOOK_MS = 100;
/** …and for this long at most, from its start on. */
export const JOIN_MS_MAX = 3000;
/** The node's thread, which knows who ranks how, may be busy for this long. */
export const RANK_MS_MAX = 1000;
/** An owner that lives but has no answer yet is left after this. */
export const OWNER_MS_MAX = 15_000;
/** A registry that has not answered after this is helped out for by what members have seen. */
export const REGISTRY_PATIENCE_MS = 2000;
/** Members that are asked for what they have while the registry is away. */
export const WITNESSES_MAX = 64;
/** …and of these at once. */
export const WITNESSES_AT_ONCE_MAX = 8;
/** An owner that may be silent for want of a processor is waited for while another is asked too. */
export const OWNER_SILENCE_MS = 3000;
/** …and by that other, before it asks the registry. */
export const CHECK_SILENCE_MS = 1000;
/** A member that could not be reached, or was silent, is asked after the others for this long. */
export const SILENT_MS = 5000;
/** One that gave another document than it was asked for is not asked for this long. */
export const LIAR_MS = 10 * 60_000;
/** For so long others are not helped with what the registry has refused to this node. */
export const REFUSED_MS = 5000;
/** Members that are not asked for a while. */
const AVOIDED_MAX = 1024;
/** Documents that the registry has refused to this node. */
const REFUSED_MAX = 1024;

/** How many documents this node has had from where, since its start. */
export interface DocumentCounts {
  /** Of its own needs: known here. */
  store: number;
  /** Of its own needs: from the owner. */
  owner: number;
  /** From others that had it, for itself or as owner. */
  member: number;
  /** From the registry, for itself or as owner. */
  registry: number;
}

export interface AskOptions {
  readonly signal: AbortSignal;
  /** Without a sign of life for so long the member is given up; default 300. */
  readonly silenceMs?: number;
  /** No sign of life for 300 ms. */
  readonly onSilent?: () => void;
}

export interface DocumentOwnerParts {
  readonly selfId: string;
  /** Whether there are seeds, by which members are to be found. */
  readonly hasSeeds: boolean;
  readonly rank: (key: string, othersMax: number) => Promise<RankedMembers>;
  readonly ask: (
    peer: PeerRef,
    question: DocumentQuestion,
    options: AskOptions,
  ) => Promise<DocumentReply>;
  /** From the records of this node's images, however old. */
  readonly stored: (wanted: DocumentName) => Promise<SharedDocument | undefined>;
  /** With this node's credentials; `known`: what a tag meant until lately. */
  readonly fetch: (
    wanted: DocumentName,
    options: { readonly signal: AbortSignal; readonly known?: SharedDocument | undefined },
  ) => Promise<SharedDocument>;
  /** Whether the registry's name means the same on every node. */
  readonly isShared: (registry: string) => boolean;
  /** How long a tag's meaning is believed. */
  readonly tagTtlMs: number;
  readonly cache: DocumentCache;
  readonly clock: Clock;
  readonly log: Logger;
}

interface SignalOption {
  readonly signal: AbortSignal;
}

const NOBODY: RankedMembers = { owners: [], predecessors: [], others: [] };

export class DocumentOwner implements SharedDocumentProvider {
  readonly #parts: DocumentOwnerParts;
  readonly counts: DocumentCounts = { store: 0, owner: 0, member: 0, registry: 0 };
  /**
   * Flights that ask the owner, and flights that ask the registry. The latter wait for no other
   * member's flight, so that members which take each other for the owner do not wait in a circle.
   */
  readonly #asking = new SingleFlight<string, SharedDocument>();
  readonly #loading = new SingleFlight<string, SharedDocument>();
  /** What the registry is being asked for. */
  readonly #fetching = new Map<string, Promise<SharedDocument>>();
  /** Member ids, until when to be asked last, or not at all. */
  readonly #silent = new LRUCache<string, number>({ max: AVOIDED_MAX });
  readonly #liars = new LRUCache<string, number>({ max: AVOIDED_MAX });
  readonly #refused = new LRUCache<string, number>({ max: REFUSED_MAX });

  /** Until when not to know anybody is no proof that this node is alone. */
  readonly #joiningUntilMs: number;

  constructor(parts: DocumentOwnerParts) {
    this.#parts = parts;
    this.#joiningUntilMs = parts.hasSeeds ? parts.clock.nowMs() + JOIN_MS_MAX : -Infinity;
  }

  /** Whether a manifest that passed here names the blob as its config. */
  isConfig(digest: Digest): boolean {
    return this.#parts.cache.isConfig(digest);
  }

  /** For this node: checked. Rejects with what the registry said. */
  async get(wanted: DocumentName, { signal }: SignalOption): Promise<SharedDocument> {
    const here = await this.#fresh(wanted);
    if (here !== undefined) {
      this.counts.store += 1;
      return here;
    }
    if (!this.#parts.isShared(wanted.registry)) return this.#load(wanted, { signal });
    return this.#asking.run(keyOf(wanted), (flight) => this.#askOwners(wanted, flight), { signal });
  }

  /** What is known here and believed: asks nobody. */
  async #fresh(wanted: DocumentName): Promise<SharedDocument | undefined> {
    const kept = this.#parts.cache.get(wanted);
    if (kept !== undefined && this.#isFresh(wanted, kept)) return kept;
    return isByDigest(wanted) ? this.#parts.stored(wanted) : undefined;
  }

  #isFresh(wanted: DocumentName, { ageMs }: SharedDocument): boolean {
    return isByDigest(wanted) || (ageMs !== undefined && ageMs < this.#parts.tagTtlMs);
  }

  /** What was ever known here. */
  async #seen(wanted: DocumentName): Promise<SharedDocument | undefined> {
    return this.#parts.cache.get(wanted) ?? (await this.#parts.stored(wanted));
  }

  /** For another member. */
  async answer(question: DocumentQuestion, { signal }: SignalOption): Promise<SharedDocument> {
    const { reach, ...wanted } = question;
    if (!this.#parts.isShared(wanted.registry)) throw askYourself(`${wanted.registry} is local`);
    const here = reach === "store" ? await this.#seen(wanted) : await this.#fresh(wanted);
    if (here !== undefined) return here;
    const coming = reach === "flight" ? this.#fetching.get(keyOf(wanted)) : undefined;
    if (coming !== undefined) return raceAbort(coming, signal);
    if (reach === "store" || reach === "flight") throw askYourself("the document is not here");
    if (reach === "forward") {
      const passed = await this.#passOn(wanted, signal);
      if (passed !== undefined) return passed;
    }
    if (this.#isRefused(wanted)) throw askYourself("the registry has refused it to this node");
    try {
      return await this.#load(wanted, { signal });
    } catch (error) {
      if (!isRefusal(error)) throw error;
      this.#refused.set(keyOf(wanted), this.#nowMs + REFUSED_MS);
      throw askYourself(`the registry refuses it to this node: ${errorMessage(error)}`);
    }
  }

  #isRefused(wanted: DocumentName): boolean {
    return isUntil(this.#refused.get(keyOf(wanted)), this.#nowMs);
  }

  get #nowMs(): number {
    return this.#parts.clock.nowMs();
  }

  /** One hop: the asker may know but a seed, which knows everybody. */
  async #passOn(wanted: DocumentName, signal: AbortSignal): Promise<SharedDocument | undefined> {
    const [owner] = (await this.#ranked(wanted)).owners;
    const isOther = owner !== undefined && owner.id !== this.#parts.selfId;
    if (!isOther || this.#isSilent(owner) || this.#isLiar(owner)) return undefined;
    const pass = async (flight: AbortSignal): Promise<SharedDocument> => {
      const options = { signal: flight, silenceMs: CHECK_SILENCE_MS };
      const reply = await this.#ask(owner, { ...wanted, reach: "fetch" }, options);
      if (reply.kind === "refused") throw reply.error;
      return reply.document;
    };
    try {
      return await this.#asking.run(`passed on ${keyOf(wanted)}`, pass, { signal });
    } catch (error) {
      throwIfAborted(signal);
      this.#parts.log.debug("document-not-passed-on", { owner: owner.id, err: error });
      return undefined;
    }
  }

  /** The first, and while it is silent the second beside it: whoever answers first. */
  async #askOwners(wanted: DocumentName, signal: AbortSignal): Promise<SharedDocument> {
    const owners = await this.#owners(wanted, signal);
    const over = new AbortController();
    const asked: Promise<DocumentReply>[] = [];
    let reply: DocumentReply | undefined;
    try {
      for (const owner of this.#inOrder(owners)) {
        // As second this node is told by the first's silence to act itself.
        if (owner.id === this.#parts.selfId) return await this.#load(wanted, { signal });
        let fallSilent: () => void = () => undefined;
        const silence = new Promise<undefined>((resolve) => {
          fallSilent = () => {
            resolve(undefined);
          };
        });
        // The second is asked because the first does not answer: it is not to pass this on.
        const question = { ...wanted, reach: owner === owners[0] ? "forward" : "fetch" } as const;
        const options = {
          signal: AbortSignal.any([signal, over.signal]),
          silenceMs: OWNER_SILENCE_MS,
          onSilent: (): void => {
            this.#silent.set(owner.id, this.#nowMs + SILENT_MS);
            fallSilent();
          },
        };
        asked.push(this.#ask(owner, question, options));
        reply = await Promise.race([firstOf(asked), silence]);
        throwIfAborted(signal);
        if (reply !== undefined) break;
      }
      reply ??= await firstOf(asked);
    } finally {
      over.abort(new DaemonError("canceled", "another has answered"));
    }
    throwIfAborted(signal);
    if (reply?.kind !== "document") return this.#load(wanted, { signal });
    this.counts.owner += 1;
    return reply.document;
  }

  async #owners(wanted: DocumentName, signal: AbortSignal): Promise<readonly PeerRef[]> {
    const { selfId, clock } = this.#parts;
    for (;;) {
      const { owners } = await this.#ranked(wanted);
      const isAlone = owners.every(({ id }) => id === selfId);
      if (!isAlone || clock.nowMs() >= this.#joiningUntilMs) return owners;
      await clock.sleep(JOIN_LOOK_MS, { signal });
    }
  }

  /** Those that were silent lately come last, but before the registry. */
  #inOrder(owners: readonly PeerRef[]): readonly PeerRef[] {
    const honest = owners.filter((owner) => !this.#isLiar(owner));
    const silent = honest.filter((owner) => this.#isSilent(owner));
    return [...honest.filter((owner) => !silent.includes(owner)), ...silent];
  }

  /** What a member says; a document is checked and kept. */
  async #ask(
    peer: PeerRef,
    question: DocumentQuestion,
    options: AskOptions,
  ): Promise<DocumentReply> {
    const { ask, clock, cache, log } = this.#parts;
    const { signal } = options;
    const limit = new AbortController();
    const cancel = clock.timer(OWNER_MS_MAX, () => {
      limit.abort(new DaemonError("deadline-exceeded", `${peer.id} has no answer yet`));
    });
    try {
      const both = AbortSignal.any([signal, limit.signal]);
      const reply = await raceAbort(ask(peer, question, { ...options, signal: both }), both);
      if (reply.kind === "document") {
        cache.keep(question, checkedDocument(question, reply.document));
      }
      this.#silent.delete(peer.id);
      return reply;
    } catch (error) {
      throwIfAborted(signal);
      log.debug("document-not-given", { peer: peer.id, reach: question.reach, err: error });
      if (isAway(error)) this.#silent.set(peer.id, this.#nowMs + SILENT_MS);
      if (errorCode(error) === "data-loss") {
        log.warn("document-refused", { peer: peer.id, err: error });
        this.#liars.set(peer.id, this.#nowMs + LIAR_MS);
      }
      throw error;
    } finally {
      cancel();
    }
  }

  #isSilent({ id }: PeerRef): boolean {
    return isUntil(this.#silent.get(id), this.#nowMs);
  }

  #isLiar({ id }: PeerRef): boolean {
    return isUntil(this.#liars.get(id), this.#nowMs);
  }

  async #ranked({ registry, name }: DocumentName, othersMax = 0): Promise<RankedMembers> {
    const { rank, clock, log } = this.#parts;
    const late = new AbortController();
    const cancel = clock.timer(RANK_MS_MAX, () => {
      late.abort(new DaemonError("deadline-exceeded", "the node's thread is late"));
    });
    try {
      const key = `document:${registry}/${name}`;
      return await raceAbort(rank(key, othersMax), late.signal);
    } catch (error) {
      log.debug("document-owner-unknown", { err: error });
      return NOBODY;
    } finally {
      cancel();
    }
  }

  /** As owner, or for want of one: one flight for all who ask. */
  async #load(wanted: DocumentName, { signal }: SignalOption): Promise<SharedDocument> {
    return this.#loading.run(
      keyOf(wanted),
      async (flight) =>
        (await this.#fresh(wanted)) ??
        (await this.#fromPredecessors(wanted, flight)) ??
        (await this.#fromRegistry(wanted, flight)),
      { signal },
    );
  }

  /** Whoever owned the repository until lately needs no registry to answer. */
  async #fromPredecessors(
    wanted: DocumentName,
    signal: AbortSignal,
  ): Promise<SharedDocument | undefined> {
    if (!this.#parts.isShared(wanted.registry)) return undefined;
    const { predecessors } = await this.#ranked(wanted);
    return this.#fromStores(
      predecessors,
      { ...wanted, reach: "flight" },
      {
        signal,
        silenceMs: CHECK_SILENCE_MS,
        isWelcome: (found) => this.#isFresh(wanted, found),
      },
    );
  }

  async #fromRegistry(wanted: DocumentName, signal: AbortSignal): Promise<SharedDocument> {
    const fetching = this.#fetch(wanted, signal);
    this.#noteFetching(wanted, fetching);
    const patience = new AbortController();
    const cancel = this.#parts.clock.timer(REGISTRY_PATIENCE_MS, () => {
      patience.abort(new DaemonError("deadline-exceeded", "the registry does not answer"));
    });
    let reason: unknown;
    try {
      return await raceAbort(fetching, AbortSignal.any([signal, patience.signal]));
    } catch (error) {
      throwIfAborted(signal);
      if (!isAway(error)) throw error;
      reason = error;
    } finally {
      cancel();
    }
    const spare = await this.#withoutRegistry(wanted, signal);
    // What the registry says in the end is for those who ask next.
    if (spare === undefined) return fetching;
    const { registry, name, reference } = wanted;
    const fields = { registry, name, reference, digest: spare.digest };
    this.#parts.log.warn("document-without-registry", { ...fields, reason: errorMessage(reason) });
    return spare;
  }

  async #fetch(wanted: DocumentName, signal: AbortSignal): Promise<SharedDocument> {
    const { fetch, cache } = this.#parts;
    const known = cache.get(wanted);
    const fetched = checkedDocument(wanted, await fetch(wanted, { signal, known }));
    this.counts.registry += 1;
    cache.keep(wanted, fetched);
    this.#refused.delete(keyOf(wanted));
    return fetched;
  }

  /** Others may wait for it, who wait for nothing else. */
  #noteFetching(wanted: DocumentName, fetching: Promise<SharedDocument>): void {
    const key = keyOf(wanted);
    this.#fetching.set(key, fetching);
    const end = (): void => {
      if (this.#fetching.get(key) === fetching) this.#fetching.delete(key);
    };
    fetching.then(end, end);
  }

  /** A registry that is away does not make unknown what somebody knows. */
  async #withoutRegistry(
    wanted: DocumentName,
    signal: AbortSignal,
  ): Promise<SharedDocument | undefined> {
    const here = await this.#seen(wanted);
    if (here !== undefined || !this.#parts.isShared(wanted.registry)) return here;
    const { others } = await this.#ranked(wanted, WITNESSES_MAX);
    for (let at = 0; at < others.length; at += WITNESSES_AT_ONCE_MAX) {
      const some = others.slice(at, at + WITNESSES_AT_ONCE_MAX);
      const found = await this.#fromStores(some, { ...wanted, reach: "store" }, { signal });
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** The first of what these members have at hand. */
  async #fromStores(
    members: readonly PeerRef[],
    question: DocumentQuestion,
    options: AskOptions & { readonly isWelcome?: (found: SharedDocument) => boolean },
  ): Promise<SharedDocument | undefined> {
    const { isWelcome, ...rest } = options;
    const self = this.#parts.selfId;
    const asked = members.filter(
      (member) => member.id !== self && !this.#isSilent(member) && !this.#isLiar(member),
    );
    const found = asked.map(async (member) => {
      const reply = await this.#ask(member, question, rest);
      if (reply.kind === "refused") throw reply.error;
      if (isWelcome?.(reply.document) !== false) return reply.document;
      throw askYourself("what it has is too old");
    });
    try {
      const first = await Promise.any(found);
      this.counts.member += 1;
      return first;
    } catch {
      throwIfAborted(options.signal);
      return undefined; // none of them has it
    }
  }
}

/** Undefined when none of them answers. */
async function firstOf(
  asked: readonly Promise<DocumentReply>[],
): Promise<DocumentReply | undefined> {
  return Promise.any(asked).catch(() => undefined);
}

function isUntil(untilMs: number | undefined, nowMs: number): boolean {
  return untilMs !== undefined && untilMs > nowMs;
}

function keyOf({ kind, registry, name, reference }: DocumentName): string {
  return `${kind} ${registry}/${name} ${reference}`;
}

function isByDigest({ reference }: DocumentName): boolean {
  return reference.includes(":");
}

function askYourself(message: string): DaemonError {
  return new DaemonError("not-found", message);
}

/** The registry's own word, which with other credentials may be another. */
function isRefusal(error: unknown): boolean {
  return ["not-found", "permission-denied", "unauthenticated"].includes(errorCode(error));
}

function isAway(error: unknown): boolean {
  return ["unavailable", "deadline-exceeded"].includes(errorCode(error));
}
