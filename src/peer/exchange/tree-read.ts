/**
 * One range of a blob, read from the members above us in the tree, nearest first.
 *
 * The ladder is parent, grandparent, root. A peer that refuses or breaks off makes the next one be
 * asked at once; one that was silent for 100 ms (a tick is a sign of life) makes the next one be
 * asked beside it, and whichever brings bytes first goes on. When all are silent and a reader
 * waits, the read ends as soon as the registry may be read in their place. A block that a member
 * neither has nor awaits is asked of the root: one jump. What was begun by one member and finished
 * by another is compared where both sent it, so that a whole wrong block is always somebody's.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { abortReason, onAbort } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import { DaemonError, withContext } from "../../base/errors.ts";
import type { FetchPriority } from "../../block/index.ts";
import type { Digest } from "../../oci/index.ts";
import type { PeerRef } from "../peer-ref.ts";
import { BlockStream } from "./block-stream.ts";
import type { PeerConnections } from "./connections.ts";
import type { ExchangeCounters } from "./counters.ts";
import type { PeerHealth } from "./health.ts";
import { LEAVE_POLL_MS, LIFE_MS, PATH_MEMBERS_MAX, SILENCE_MS } from "./limits.ts";
import type { Pace } from "./pace.ts";
import { rungsOf } from "./position.ts";
import type { PositionLookup } from "./position.ts";
import type { BlockRange } from "./protocol.ts";
import { UnitBytes } from "./unit-bytes.ts";
import { WaitBook } from "./wait-book.ts";

export interface TreeReadContext {
  readonly selfId: string;
  readonly connections: PeerConnections;
  readonly positions: PositionLookup;
  readonly health: PeerHealth;
  readonly waits: WaitBook;
  readonly counters: ExchangeCounters;
  readonly clock: Clock;
  /** Silence, in ms, after which the next one up is asked too, on a machine at leisure. */
  readonly hedgeMs: number;
  readonly pace: Pace;
  /** Whether the registry may be read now by others than the root; asks for leave if need be. */
  readonly mayLeave: (image: Digest) => boolean;
  /** The root, our parent, broke the connection or refuses any: it is no longer there. */
  readonly onRootLost: (image: Digest) => void;
}

export interface TreeReadRequest {
  /** Manifest digest. */
  readonly image: Digest;
  /** Diff ID, hex. */
  readonly layerId: string;
  readonly blobDigest: Digest;
  /** In order, by start and by end. */
  readonly units: readonly BlockRange[];
  readonly priority: FetchPriority;
  /** Whether a reader waits, by now. */
  readonly isUrgent: () => boolean;
  readonly signal: AbortSignal;
  /** Who has sent a block in full; undefined: several, none of them all of it. */
  readonly onBlock: (index: number, peerId: string | undefined) => void;
}

const NOTHING = new Uint8Array();

export class TreeRead {
  readonly #context: TreeReadContext;
  readonly #request: TreeReadRequest;
  readonly #streams = new Set<BlockStream>();
  /** Peers that failed in this read: not asked again. */
  readonly #failed = new Set<string>();
  #lastError: DaemonError | undefined;
  #wake: (() => void) | undefined;
  #isAwake = false;
  #lastYieldMs: number;

  constructor(context: TreeReadContext, request: TreeReadRequest) {
    this.#context = context;
    this.#request = request;
    this.#lastYieldMs = context.clock.nowMs();
  }

  /**
   * The bytes from the first unit's start to the last one's end, each once; zeros where no unit is
   * (nobody reads gaps). An empty piece now and then says that the source lives, though it waits.
   */
  async *bytes(): AsyncGenerator<Uint8Array> {
    const { signal, units } = this.#request;
    const stop = signal.aborted
      ? () => undefined
      : onAbort(signal, () => {
          this.#wakeUp();
        });
    let position = units[0]?.start ?? 0;
    try {
      for (const [at, unit] of units.entries()) {
        if (unit.start > position) {
          yield new Uint8Array(unit.start - position);
          position = unit.start;
        }
        let offset = unit.start;
        for await (const piece of this.#unit(at, unit)) {
          // Gzip blocks share a byte: it was yielded with the block before.
          const fresh = piece.subarray(Math.max(0, position - offset));
          offset += piece.length;
          if (fresh.length > 0 || piece.length === 0) yield fresh;
          position = Math.max(position, offset);
        }
      }
    } finally {
      stop();
      for (const stream of this.#streams) stream.abort();
      this.#streams.clear();
    }
  }

  /** One unit's bytes, whoever brings them. */
  async *#unit(at: number, unit: BlockRange): AsyncGenerator<Uint8Array> {
    const { clock } = this.#context;
    const bytes = new UnitBytes(unit.end - unit.start);
    const asked = [...this.#streams].filter((stream) => stream.mayBring(unit.index));
    const tried = new Set(asked.map(({ peer }) => peer.id));
    const state = {
      at,
      unit,
      bytes,
      tried,
      sinceMs: clock.nowMs(),
      isMissing: false,
      isRootLost: false,
    };
    for (;;) {
      if (this.#request.signal.aborted) throw abortReason(this.#request.signal);
      this.#isAwake = false;
      for (const stream of this.#streams) {
        for (let piece = this.#next(stream, state); piece !== undefined;) {
          if (piece.length > 0) {
            this.#lastYieldMs = clock.nowMs();
            yield piece;
          }
          piece = this.#next(stream, state);
        }
        if (bytes.supplier !== undefined) {
          this.#complete(state);
          return;
        }
      }
      this.#bury();
      this.#ensureAsked(state);
      // Whom to ask is this read's business: whoever waits for it does not count its silence.
      if (clock.nowMs() - this.#lastYieldMs >= LIFE_MS) {
        this.#lastYieldMs = clock.nowMs();
        yield NOTHING;
      }
      await this.#untilWoken(state);
    }
  }

  /** The stream's next piece of the unit that is new; empty: an event that brought none. */
  #next(stream: BlockStream, state: UnitState): Uint8Array | undefined {
    const event = stream.peek();
    const { unit, bytes } = state;
    if (event === undefined || event.index > unit.index) return undefined;
    stream.shift();
    if (event.index < unit.index) return NOTHING; // of a block that somebody else brought
    if (event.kind === "data") {
      const fresh = bytes.add(stream, event.bytes);
      if (fresh === "differs") throw this.#quarrel(stream, bytes);
      if (fresh.length > 0) this.#prefer(stream, unit.index);
      return fresh;
    }
    if (event.kind === "end") {
      bytes.end(stream, stream.peer.id);
      return undefined;
    }
    if (event.kind === "failed") this.#lastError = event.error;
    bytes.drop(stream);
    state.isMissing ||= event.kind === "not-here";
    return NOTHING;
  }

  /** The block is whole: whoever sent all of it answers for it. */
  #complete({ unit, bytes }: UnitState): void {
    const { health } = this.#context;
    const { supplier } = bytes;
    if (supplier === undefined) return;
    health.good(supplier.peerId);
    this.#request.onBlock(unit.index, supplier.isAlone ? supplier.peerId : undefined);
    // What others still send of it is not wanted; they go on where they bring later blocks.
    for (const stream of this.#streams) {
      const isOver = stream.asked.every(({ index }) => index <= unit.index);
      if (isOver && stream.end?.kind !== "complete") {
        if (stream.peer.id !== supplier.peerId) stream.abort();
      }
      if (isOver) this.#streams.delete(stream);
    }
  }

  /** The first to bring new bytes goes on; others that were asked for the same are let go. */
  #prefer(winner: BlockStream, index: number): void {
    for (const stream of this.#streams) {
      if (stream === winner || !stream.mayBring(index)) continue;
      if (this.#silentMs(stream, 0) >= this.#hedgeMs) this.#fail(stream, "silent");
      stream.abort();
      this.#streams.delete(stream);
    }
  }

  /** Two members sent different bytes: one lies; a block that comes from one alone will tell. */
  #quarrel(stream: BlockStream, bytes: UnitBytes): DaemonError {
    for (const earlier of bytes.senders()) {
      if (earlier !== stream) this.#fail(earlier, "reset");
    }
    return new DaemonError("aborted", "two members sent different bytes of one block");
  }

  /** Takes note of streams that ended. */
  #bury(): void {
    const { health } = this.#context;
    for (const stream of this.#streams) {
      if (stream.end === undefined && !stream.isCircular) continue;
      if (stream.peek() !== undefined && !stream.isCircular) continue;
      this.#streams.delete(stream);
      const { end } = stream;
      if (end === undefined || stream.isCircular) {
        stream.abort();
        this.#failed.add(stream.peer.id);
        continue;
      }
      if (end.kind === "complete") continue;
      this.#lastError = end.error;
      this.#failed.add(stream.peer.id);
      if (end.kind === "lied") {
        health.convict(this.#request.image, stream.peer.id, end.error.message);
      } else if (end.kind === "broken") {
        this.#fail(stream, "reset");
        this.#lost(stream.peer);
      } else if (end.isConnection) {
        this.#fail(stream, "refused");
        this.#lost(stream.peer);
      } else {
        this.#context.counters.add(stream.peer.id, "failures");
      }
    }
  }

  #lost(peer: PeerRef): void {
    const { positions, onRootLost } = this.#context;
    const { image } = this.#request;
    const { root, parent } = positions(image) ?? {};
    // Those further down have a parent that goes on for them.
    if (root?.boot === peer.boot && parent?.boot === peer.boot) onRootLost(image);
  }

  #fail(stream: BlockStream, trouble: "refused" | "reset" | "silent"): void {
    this.#context.health.failed(this.#request.image, stream.peer.id, trouble);
  }

  /** Asks the next one up where nobody is left who may bring the unit, or all are silent. */
  #ensureAsked(state: UnitState): void {
    const candidates = this.#candidates(state);
    if (candidates.length === 0) {
      const next = this.#nextRung(state) ?? this.#nextInRootsPlace(state);
      if (next === undefined) throw this.#nobody(state);
      this.#ask(next, state);
      if (state.isMissing) this.#context.counters.add(next.id, "jumps");
      return;
    }
    for (const stream of candidates) {
      if (this.#silentMs(stream, state.sinceMs) < SILENCE_MS) continue;
      this.#fail(stream, "silent");
      this.#failed.add(stream.peer.id);
      this.#lastError = new DaemonError("unavailable", `${stream.peer.id} is silent`);
      stream.abort();
      this.#streams.delete(stream);
      this.#wakeUp();
    }
    if (!candidates.every((stream) => this.#isSilent(stream, state))) return;
    const next = this.#nextRung(state);
    if (next !== undefined) {
      this.#context.counters.add(next.id, "hedges");
      this.#ask(next, state);
    } else if (this.#request.isUrgent() && this.#context.mayLeave(this.#request.image)) {
      for (const stream of candidates) this.#fail(stream, "silent");
      throw this.#nobody(state);
    }
  }

  /** Silence that means something on this machine now. */
  get #hedgeMs(): number {
    return this.#context.pace.patienceMs(this.#context.hedgeMs);
  }

  #isSilent(stream: BlockStream, { sinceMs }: UnitState): boolean {
    return this.#silentMs(stream, sinceMs) >= this.#hedgeMs;
  }

  #candidates({ unit, bytes }: UnitState): BlockStream[] {
    return [...this.#streams].filter(
      (stream) => stream.mayBring(unit.index) && !bytes.isDropped(stream),
    );
  }

  #silentMs(stream: BlockStream, sinceMs: number): number {
    return this.#context.clock.nowMs() - Math.max(stream.lastSignMs, sinceMs);
  }

  #nobody({ unit }: UnitState): DaemonError {
    const what = `no member above us has block ${unit.index}`;
    if (this.#lastError === undefined) return new DaemonError("unavailable", what);
    return withContext(this.#lastError, what, "unavailable");
  }

  #nextRung(state: UnitState): PeerRef | undefined {
    const { positions, health, waits, selfId } = this.#context;
    const { image, layerId } = this.#request;
    const position = positions(image);
    if (position === undefined) return undefined;
    const key = WaitBook.blockKey(layerId, state.unit.index);
    const usable = rungsOf(position, selfId).filter(
      ({ id }) =>
        !state.tried.has(id) &&
        !this.#failed.has(id) &&
        !health.isConvicted(id) &&
        !waits.isWaitingHere(key, id),
    );
    // One jump: what a member has not got the root gets; if that has it not, nobody is to fetch it.
    if (state.isMissing) {
      const root = usable.find(({ id }) => id === position.root.id);
      if (root !== undefined || state.tried.has(position.root.id)) return root;
    }
    return usable.find(({ id }) => !health.isCooling(id)) ?? usable[0];
  }

  /**
   * The root, whom we were to ask, is gone: our parent gets the block in its place, once. It has
   * the same trouble, up to the root's children, who alone need the registry.
   */
  #nextInRootsPlace(state: UnitState): PeerRef | undefined {
    const { positions, health } = this.#context;
    const { root, parent } = positions(this.#request.image) ?? {};
    if (root === undefined || parent === undefined || parent.id === root.id) return undefined;
    const isGone = state.isMissing && this.#failed.has(root.id);
    const isUsable = !this.#failed.has(parent.id) && !health.isConvicted(parent.id);
    if (!isGone || !isUsable || state.isRootLost || !this.#request.isUrgent()) return undefined;
    state.isRootLost = true;
    return parent;
  }

  #ask(peer: PeerRef, state: UnitState): void {
    const { waits, selfId, positions } = this.#context;
    const { image, layerId, blobDigest, units, priority } = this.#request;
    const epoch = positions(image)?.epoch;
    if (epoch === undefined) return;
    state.tried.add(peer.id);
    const rest = units.slice(state.at);
    const key = WaitBook.blockKey(layerId, state.unit.index);
    const path = [...waits.pathOf(key), selfId];
    if (path.length > PATH_MEMBERS_MAX) {
      throw new DaemonError("failed-precondition", "the request has passed too many members");
    }
    const blocks = state.isMissing ? this.#missingOf(rest, state) : rest;
    const { isRootLost } = state;
    const from = { image, layer: layerId, blob: blobDigest, blocks };
    const request = { ...from, epoch, path, priority, ...(isRootLost ? { isRootLost } : {}) };
    const stream = new BlockStream(peer, request, {
      ...this.#context,
      onWake: () => {
        this.#wakeUp();
      },
    });
    this.#streams.add(stream);
  }

  /** The unit, and those behind it that whoever goes on has said it has not got either. */
  #missingOf(rest: readonly BlockRange[], { unit }: UnitState): readonly BlockRange[] {
    const missing = new Set<number>([unit.index]);
    let hasOthers = false;
    for (const stream of this.#streams) {
      if (stream.end !== undefined && stream.peek() === undefined) continue;
      hasOthers = true;
      for (const index of stream.missingAhead()) missing.add(index);
    }
    // Nobody goes on: the root is asked for all that is left.
    return hasOthers ? rest.filter(({ index }) => missing.has(index)) : rest;
  }

  #wakeUp(): void {
    this.#isAwake = true;
    this.#wake?.();
  }

  /** Until an event, the next deadline of silence, or the next sign of life that is due. */
  async #untilWoken(state: UnitState): Promise<void> {
    if (this.#isAwake) return;
    const { clock, pace } = this.#context;
    const hedgeMs = this.#hedgeMs;
    const pollMs = this.#request.isUrgent() ? LEAVE_POLL_MS : LIFE_MS;
    const delaysMs = this.#candidates(state).map((stream) => {
      const silentMs = this.#silentMs(stream, state.sinceMs);
      return silentMs < hedgeMs ? hedgeMs - silentMs : pollMs;
    });
    const delayMs = Math.max(1, Math.min(LIFE_MS, ...delaysMs));
    const dueMs = clock.nowMs() + delayMs;
    const woken = new Promise<"woken">((resolve) => {
      this.#wake = () => {
        resolve("woken");
      };
    });
    let cancel: (() => void) | undefined;
    const late = new Promise<"late">((resolve) => {
      cancel = clock.timer(delayMs, () => {
        resolve("late");
      });
    });
    const reason = await Promise.race([woken, late]);
    this.#wake = undefined;
    cancel?.();
    if (reason !== "late") return;
    pace.note(clock.nowMs() - dueMs);
    // If it was this process that stood still, what came meanwhile is read first.
    await nextTurn();
  }
}

interface UnitState {
  readonly at: number;
  readonly unit: BlockRange;
  readonly bytes: UnitBytes;
  readonly tried: Set<string>;
  readonly sinceMs: number;
  /** Somebody said that it has the block neither here nor on its way. */
  isMissing: boolean;
  /** The root is gone, and our parent was asked in its place. */
  isRootLost: boolean;
}
