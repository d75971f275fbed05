/**
 * One image's tree in the hands of its manager, or of the manager's deputy. How an office changes
 * hands is succession.ts's.
 */
import type { Address } from "../membership/index.ts";
import type { TreeContext } from "./context.ts";
import type { RemovalReason } from "./effects.ts";
import { Judgement } from "./judgement.ts";
import type { Move } from "./judgement.ts";
import { PUSHES_MAX } from "./limits.ts";
import { ManagedTree } from "./managed-tree.ts";
import type { ComplaintMessage, Contact, Epoch, Report, TokenMessage } from "./messages.ts";
import { TokenBucket } from "./token-bucket.ts";
import { RootAsks } from "./root-asks.ts";
import type { TreeRecord } from "./tree-record.ts";

/**
 * `asking`: are there others that manage this tree already? `gathering`: its members are heard
 * before anybody is made root. `manager`: decides. `deputy`: remembers what it hears.
 */
export type OfficeRole = "asking" | "gathering" | "manager" | "deputy";

interface Push {
  nextMs: number;
  left: number;
}

export class Office {
  readonly image: string;
  readonly tree: ManagedTree;
  role: OfficeRole = "deputy";
  /** Deputy: whom it stands in for. */
  principal: Contact | undefined;
  /** Deputy: last sign of the principal's managing. */
  beatMs = -Infinity;
  /** Deputy: by when a sign is due. */
  beatDueMs = Infinity;
  /** Deputy: the principal answers, but does not manage this tree; so often in a row. */
  doubts = 0;
  /** Deputy: when it was last told to be one. */
  namedMs = -Infinity;
  /** Deputy: the boot of the manager that said so itself; others took it for the deputy. */
  namedBy: string | undefined;
  readonly openedMs: number;
  /** What was reported before this may be incomplete: nobody is made root. */
  gatherUntilMs = -Infinity;
  /** Asking, gathering: when that ends. */
  waitUntilMs = Infinity;
  /** Manager: who stands in for it, since when, and how many members it has heard of. */
  deputy: Contact | undefined;
  deputySinceMs = -Infinity;
  deputyAckMs = -Infinity;
  deputyKnown = 0;
  nextBeatMs = Infinity;
  /** Manager: the boot that it hands over to, and who has handed over to it. */
  handsTo: string | undefined;
  tookFrom: Contact | undefined;
  /** Deputy: what the principal said of its tree at last. */
  claim: { readonly size: number; readonly epoch: Epoch } | undefined;
  /** Asking: answers that are still waited for. */
  asked = 0;
  /** The manager that fell silent, a member too: to be looked at when this one manages. */
  suspect: string | undefined;
  nextSweepMs: number;
  /** Manager: in which view a rival was looked for, and how often it still is. */
  searchedAt = -1;
  searchesLeft = 0;
  nextSearchMs = -Infinity;
  readonly #context: TreeContext;
  readonly #judgement: Judgement;
  readonly #pushes = new Map<string, Push>();
  readonly #bucket: TokenBucket;
  readonly #rootAsks = new RootAsks();
  #pushMs = Infinity;
  emptySinceMs: number;

  constructor(context: TreeContext, image: string, nowMs: number) {
    this.#context = context;
    this.image = image;
    this.tree = new ManagedTree(image, () => context.self, context.config);
    this.#judgement = new Judgement(this.tree, context.config);
    this.nextSweepMs = nowMs + context.config.heartbeatMs;
    this.emptySinceMs = nowMs;
    this.openedMs = nowMs;
    const { registryBytesPerSecond: perSecond, registryBurstBytes: burst } = context.config;
    this.#bucket = new TokenBucket({ perSecond, burst, nowMs });
  }

  get nextMs(): number {
    return Math.min(
      this.nextSweepMs,
      this.waitUntilMs,
      this.nextBeatMs,
      this.beatDueMs,
      this.#pushMs,
    );
  }

  /** As manager: the answer to a join or heartbeat. */
  answer(report: Report, nowMs: number): void {
    const { id } = report.member;
    const admission = this.tree.admit(report, nowMs);
    if (admission.kind === "refused") {
      const { reason } = admission;
      this.#context.send(report.member, { kind: "refused", image: this.image, reason });
      this.#context.event({ kind: "refused", image: this.image, reason });
      return;
    }
    const { overloaded, affected, isNew } = admission;
    const { image } = this;
    if (isNew) this.#context.event({ kind: "joined", image, id, size: this.tree.size });
    if (overloaded !== undefined) {
      const { ref, interior } = overloaded;
      this.#context.event({ kind: "interior-limit", image, id: ref.id, interior });
    }
    const { seat } = report;
    const seen = seat?.epoch.counter ?? 0;
    if (seen > this.tree.epoch.counter) this.tree.raiseEpoch(seen);
    this.push(affected, nowMs);
    if (seat === undefined) this.beatSoon(nowMs);
    if (seat?.fingerprint !== this.tree.fingerprint(id)) {
      this.#sendPosition(id);
      return;
    }
    this.#pushes.delete(id);
    const { epoch, size } = this.tree;
    const children = this.tree.childrenOf(id);
    this.#context.send(report.member, { kind: "ack", image, epoch, size, children });
  }

  /** The deputy waits for a sign of life when it hears of a join. */
  beatSoon(nowMs: number): void {
    if (this.deputy !== undefined) {
      this.nextBeatMs = Math.min(this.nextBeatMs, nowMs + BEAT_DELAY_MS);
    }
  }

  wait(report: Report, nowMs: number): void {
    const forMs = Math.max(0, Math.min(this.waitUntilMs - nowMs, this.#context.config.heartbeatMs));
    this.#context.send(report.member, { kind: "wait", image: this.image, forMs });
  }

  remove(id: string, reason: RemovalReason, nowMs: number): void {
    const { image } = this;
    if (this.role !== "manager") {
      this.tree.forget(id);
      return;
    }
    if (this.tree.get(id) === undefined) return;
    const affected = this.tree.remove(id);
    this.#pushes.delete(id);
    this.#context.event({ kind: "removed", image, id, reason, affected: affected.length });
    this.push(affected, nowMs);
    if (this.tree.size === 0) this.emptySinceMs = nowMs;
  }

  complain(message: ComplaintMessage, nowMs: number): void {
    const { about, accuser, reason } = message;
    const accused = this.tree.get(about);
    if (this.role !== "manager") return;
    if (accused === undefined) {
      // The accuser has not heard that it is gone.
      this.push([accuser], nowMs);
      return;
    }
    // It was heard by nobody else a moment ago: a short look is enough.
    if (reason === "silent") this.#check(accused, COMPLAINED_SHARE, nowMs);
    this.#move(this.#judgement.complain(message, nowMs), nowMs);
  }

  /** A member that does not answer is taken out, see the verdict. */
  verify(record: TreeRecord, nowMs: number): void {
    // Another root costs a working set from the registry: it is given longer.
    const isRoot = record.ref.id === this.tree.shape.root;
    this.#check(record, isRoot ? ROOT_PATIENCE : 1, nowMs);
  }

  #check({ ref }: TreeRecord, patience: number, nowMs: number): void {
    const withinMs = patience * this.#context.config.memberSilenceMs;
    if (ref.boot === this.#context.self.boot) return;
    this.#context.reach.check(ref, { image: this.image, reason: "member", withinMs }, nowMs);
  }

  token({ nonce, bytes }: TokenMessage, from: TokenAsker, nowMs: number): void {
    const retryAfterMs = this.#registryWaitMs(bytes, from.boot, nowMs);
    const granted = retryAfterMs === 0;
    const answer = {
      kind: "token-answer",
      image: this.image,
      nonce,
      granted,
      retryAfterMs,
    } as const;
    this.#context.send(from, answer);
  }

  /** 0: the member may read so much. While the root answers it is to wait for that one. */
  #registryWaitMs(bytes: number, boot: string, nowMs: number): number {
    const { config, self, reach } = this.#context;
    const root = this.tree.root?.ref;
    if (boot === root?.boot) return 0;
    const isAway = root === undefined || this.#rootAsks.isSilent(root.boot, nowMs);
    const sinceMs = this.#rootAsks.note(boot, nowMs);
    if (isAway || nowMs - sinceMs >= config.rootPatienceMs) return this.#bucket.take(bytes, nowMs);
    if (root.boot !== self.boot) {
      const withinMs = config.rootSilenceMs;
      reach.check(root, { image: this.image, reason: "root", withinMs }, nowMs);
    }
    return config.rootSilenceMs + ROOT_ANSWER_MS;
  }

  /** The root did not answer for a short time: others may read the registry; it is not out yet. */
  onRootSilent(contact: Contact, nowMs: number): void {
    const root = this.tree.root;
    if (root?.ref.boot !== contact.boot) return;
    this.#rootAsks.silent(contact.boot, nowMs);
    this.verify(root, nowMs);
  }

  /** Tells members where they stand, until their heartbeats show that they know. */
  push(ids: readonly string[], nowMs: number): void {
    for (const id of ids) {
      if (!this.#sendPosition(id)) continue;
      const nextMs = nowMs + this.#context.config.pushMs;
      this.#pushes.set(id, { nextMs, left: PUSHES_MAX });
      this.#pushMs = Math.min(this.#pushMs, nextMs);
    }
  }

  tick(nowMs: number): void {
    if (this.role === "manager" && nowMs >= this.#pushMs) this.#repeatPushes(nowMs);
    if (nowMs < this.nextSweepMs) return;
    const { heartbeatMs, memberTimeoutMs } = this.#context.config;
    this.nextSweepMs = nowMs + heartbeatMs;
    const staleMs = nowMs - memberTimeoutMs;
    for (const record of this.tree.records()) {
      if (record.seenMs > staleMs) continue;
      if (this.role === "manager") this.verify(record, nowMs);
      else this.tree.forget(record.ref.id);
    }
    if (this.role === "manager") this.#move(this.#judgement.sweep(nowMs), nowMs);
  }

  #repeatPushes(nowMs: number): void {
    let next = Infinity;
    for (const [id, push] of this.#pushes) {
      if (push.nextMs <= nowMs) {
        push.left -= 1;
        push.nextMs = nowMs + this.#context.config.pushMs;
        if (!this.#sendPosition(id) || push.left <= 0) {
          this.#pushes.delete(id);
          continue;
        }
      }
      next = Math.min(next, push.nextMs);
    }
    this.#pushMs = next;
  }

  #sendPosition(id: string): boolean {
    const position = this.tree.position(id);
    const record = this.tree.get(id);
    if (position === undefined || record === undefined) return false;
    this.#context.send(record.ref, position);
    return true;
  }

  #move(move: Move | undefined, nowMs: number): void {
    if (move === undefined) return;
    const { id, reason, affected } = move;
    this.#context.event({ kind: "moved", image: this.image, id, reason });
    this.push(affected, nowMs);
  }
}

interface TokenAsker {
  readonly boot: string;
  readonly address: Address;
}

/** Joins of so long are covered by one sign of life. */
const BEAT_DELAY_MS = 20;
const ROOT_PATIENCE = 1.5;
/** A member that others find silent is given this share of the time. */
const COMPLAINED_SHARE = 0.5;
/** From the verdict on a root to when it is asked for. */
const ROOT_ANSWER_MS = 20;
