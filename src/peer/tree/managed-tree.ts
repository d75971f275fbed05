/**
 * One image's tree as its manager, or the manager's deputy, keeps it: the members' records, the
 * shape, the epoch, and everybody's position in it.
 */
import type { PeerRef } from "../peer-ref.ts";
import type { TreeConfig } from "./config.ts";
import { FunctionTree } from "./function-tree.ts";
import type { ParentChange } from "./function-tree.ts";
import { LEAVES_TRIED_MAX, PUSH_ALL_MAX, TREE_MEMBERS_MAX, TREE_ZONES_MAX } from "./limits.ts";
import type { Contact, Epoch, PositionMessage, RefusalReason, Report } from "./messages.ts";
import { rebuildTree } from "./rebuild.ts";
import { addHash, recordOf, textHash, updateRecord } from "./tree-record.ts";
import type { TreeRecord } from "./tree-record.ts";

export type Admission =
  | { readonly kind: "refused"; readonly reason: RefusalReason }
  | {
      readonly kind: "admitted";
      readonly isNew: boolean;
      /** Whose position has changed beside its own. */
      readonly affected: readonly string[];
      /** Nobody was free: this member feeds others in more trees than it should. */
      readonly overloaded?: TreeRecord;
    };

interface Printed {
  readonly counter: number;
  readonly managers: number;
  readonly value: number;
}

export class ManagedTree {
  readonly image: string;
  readonly #config: TreeConfig;
  readonly #self: () => PeerRef;
  readonly #records = new Map<string, TreeRecord>();
  readonly #prints = new Map<string, Printed>();
  #shape = new FunctionTree();
  #counter = 0;
  #deputy: Contact | undefined;
  #managersHash = 0;

  constructor(image: string, self: () => PeerRef, config: TreeConfig) {
    this.image = image;
    this.#self = self;
    this.#config = config;
    this.setDeputy(undefined);
  }

  get epoch(): Epoch {
    return { counter: this.#counter, manager: this.#self().id };
  }

  get size(): number {
    return this.#records.size;
  }

  get shape(): FunctionTree {
    return this.#shape;
  }

  get root(): TreeRecord | undefined {
    return this.get(this.#shape.root ?? "");
  }

  get(id: string): TreeRecord | undefined {
    return this.#records.get(id);
  }

  records(): Iterable<TreeRecord> {
    return this.#records.values();
  }

  /** Later than `counter`, and than all before. */
  raiseEpoch(counter = 0): void {
    this.#counter = Math.max(this.#counter, counter) + 1;
  }

  setDeputy(deputy: Contact | undefined): void {
    this.#deputy = deputy;
    this.#managersHash = textHash(`${this.#self().boot} ${deputy?.boot ?? ""}`);
  }

  /** Whether any of its members has had a place before. */
  hasSeats(): boolean {
    for (const { seat } of this.#records.values()) if (seat !== undefined) return true;
    return false;
  }

  /** Takes a report up without giving the member a place: what a deputy does. */
  note(report: Report, nowMs: number): boolean {
    const { id } = report.member;
    const known = this.#records.get(id);
    if (known !== undefined) {
      updateRecord(known, report, nowMs);
      return false;
    }
    if (this.#records.size >= TREE_MEMBERS_MAX) return false;
    this.#records.set(id, recordOf(report, nowMs));
    return true;
  }

  /** Forgets a member that has no place yet: what a deputy does. */
  forget(id: string): boolean {
    return this.#records.delete(id);
  }

  /** Everybody's place from what the reports say, in a newer epoch than any of them. */
  rebuild(): void {
    this.#shape = rebuildTree(this.#records.values());
    for (const [id, { seat }] of this.#records) {
      if (!this.#shape.has(id)) this.#records.delete(id);
      if (seat !== undefined) this.#counter = Math.max(this.#counter, seat.epoch.counter);
    }
    this.#prints.clear();
    this.raiseEpoch();
  }

  /** Takes a report up; a member that is new gets the next place. */
  admit(report: Report, nowMs: number): Admission {
    const { id, zone } = report.member;
    const known = this.#records.get(id);
    if (known !== undefined) return this.#update(known, report, nowMs);
    if (this.size >= TREE_MEMBERS_MAX) return { kind: "refused", reason: "members" };
    if (!this.#hasRoomFor(zone)) {
      return { kind: "refused", reason: "zones" };
    }
    const parent = this.#makeRoom(zone, nowMs);
    this.#records.set(id, recordOf(report, nowMs));
    this.#shape.join(id, zone);
    const admitted = { kind: "admitted", isNew: true, affected: parent.affected } as const;
    const { overloaded } = parent;
    return overloaded === undefined ? admitted : { ...admitted, overloaded };
  }

  #update(known: TreeRecord, report: Report, nowMs: number): Admission {
    const { id, zone } = report.member;
    const isMoved = known.ref.zone !== zone && this.#hasRoomFor(zone);
    if (!updateRecord(known, report, nowMs) && !isMoved) {
      return { kind: "admitted", isNew: false, affected: [] };
    }
    // Reached in another way: its neighbours have to hear of it.
    const root = this.#shape.root;
    const changes = isMoved ? this.#shape.join(id, zone) : [];
    this.raiseEpoch();
    const affected = new Set(this.#affectedBy(changes, root));
    for (const near of this.#below(id)) affected.add(near);
    return { kind: "admitted", isNew: false, affected: [...affected] };
  }

  #hasRoomFor(zone: string): boolean {
    return this.#shape.zoneSize(zone) > 0 || this.#shape.zoneCount < TREE_ZONES_MAX;
  }

  /**
   * Before a zone's next member comes: whose first child it is should not feed others in too many
   * trees, nor be one that was convicted. Both are leaves still, so that a swap moves two members.
   */
  #makeRoom(
    zone: string,
    nowMs: number,
  ): { readonly affected: readonly string[]; readonly overloaded?: TreeRecord } {
    const parent = this.get(this.#shape.nextParent(zone) ?? "");
    if (parent === undefined || this.#isFree(parent, nowMs)) return { affected: [] };
    if (this.#shape.childrenOf(parent.ref.id).length > 0) return { affected: [] };
    let best = parent;
    for (const leaf of this.leaves(zone)) {
      if (best.barredUntilMs > nowMs || leaf.interior < best.interior) {
        if (leaf.barredUntilMs <= nowMs) best = leaf;
      }
      if (this.#isFree(best, nowMs)) break;
    }
    const overloaded = best.interior >= this.#config.interiorMax ? { overloaded: best } : {};
    if (best === parent) return { affected: [], ...overloaded };
    return { affected: this.swap(parent.ref.id, best.ref.id), ...overloaded };
  }

  #isFree(record: TreeRecord, nowMs: number): boolean {
    return record.interior < this.#config.interiorMax && record.barredUntilMs <= nowMs;
  }

  /** Members without children, last first, as many as are looked at. */
  *leaves(zone: string): IterableIterator<TreeRecord> {
    let tried = 0;
    for (const id of this.#shape.leaves(zone)) {
      if (tried >= LEAVES_TRIED_MAX) return;
      tried += 1;
      const record = this.get(id);
      if (record !== undefined) yield record;
    }
  }

  /** Returns whose position has changed. */
  remove(id: string): readonly string[] {
    if (!this.#records.has(id)) return [];
    const root = this.#shape.root;
    const changes = this.#shape.remove(id, (other) => this.get(other)?.heldBlocks ?? 0);
    this.#records.delete(id);
    this.#prints.delete(id);
    this.raiseEpoch();
    return this.#affectedBy(changes, root);
  }

  swap(one: string, other: string): readonly string[] {
    const root = this.#shape.root;
    const changes = this.#shape.swap(one, other);
    this.raiseEpoch();
    return [...new Set([one, other, ...this.#affectedBy(changes, root)])];
  }

  /** Whoever has another parent or grandparent; all when the root is another, if they are few. */
  #affectedBy(changes: readonly ParentChange[], rootBefore: string | undefined): readonly string[] {
    if (this.#shape.root !== rootBefore && this.size <= PUSH_ALL_MAX) return [...this.#shape.ids()];
    const affected = new Set<string>();
    for (const { id } of changes) {
      affected.add(id);
      for (const child of this.#shape.childrenOf(id)) affected.add(child);
    }
    return [...affected];
  }

  /** Children and grandchildren. */
  #below(id: string): readonly string[] {
    const children = this.#shape.childrenOf(id);
    return [...children, ...children.flatMap((child) => this.#shape.childrenOf(child))];
  }

  /** Of all of a position but size and children, which change with every join. */
  fingerprint(id: string): number {
    const known = this.#prints.get(id);
    if (known?.counter === this.#counter && known.managers === this.#managersHash) {
      return known.value;
    }
    const { slot } = this.#shape.placeOf(id);
    const parent = this.#shape.parentOf(id);
    const grandparent = parent === undefined ? undefined : this.#shape.parentOf(parent);
    let hash = addHash(this.#managersHash, slot);
    hash = addHash(hash, this.#shape.depthOf(id));
    for (const near of [parent, grandparent, this.#shape.root]) {
      hash = addHash(hash, this.get(near ?? "")?.hash ?? 1);
    }
    const value = hash >>> 0;
    const counter = this.#counter;
    this.#prints.set(id, { counter, managers: this.#managersHash, value });
    return value;
  }

  childrenOf(id: string): number {
    return this.#shape.childrenOf(id).length;
  }

  /** Undefined: it is not in the tree. */
  position(id: string): PositionMessage | undefined {
    const { root } = this;
    if (root === undefined || !this.#shape.has(id)) return undefined;
    const parentId = this.#shape.parentOf(id);
    const parent = this.get(parentId ?? "");
    const grandparent = this.get(this.#shape.parentOf(parentId ?? id) ?? "");
    const deputy = this.#deputy;
    const { id: manager, boot, address } = this.#self();
    return {
      kind: "position",
      image: this.image,
      epoch: this.epoch,
      slot: this.#shape.placeOf(id).slot,
      depth: this.#shape.depthOf(id),
      size: this.size,
      children: this.childrenOf(id),
      fingerprint: this.fingerprint(id),
      root: root.ref,
      ...(parent === undefined ? {} : { parent: parent.ref }),
      ...(parent === undefined || grandparent === undefined
        ? {}
        : { grandparent: grandparent.ref }),
      manager: { id: manager, boot, address },
      ...(deputy === undefined ? {} : { deputy }),
    };
  }
}
