/**
 * The shape of one image's function tree: who fetches from whom. A complete binary tree in an array
 * for each zone (the parent of slot i is slot (i - 1) >> 1); the first member of every zone but the
 * first fetches from the root. Joining and leaving move at most two members, whatever the size.
 * Source: FaaSNet (USENIX ATC'21) 3.2; the array instead of rotations keeps the tree complete, and
 * leaves no pointer that could go stale.
 */
import { DaemonError } from "../../base/errors.ts";
import { TREE_MEMBERS_MAX, TREE_ZONES_MAX } from "./limits.ts";

export interface Place {
  readonly zone: string;
  readonly slot: number;
}

/** A member that has another parent now; undefined: it is the root. */
export interface ParentChange {
  readonly id: string;
  readonly parent: string | undefined;
}

const ROOT_SLOT = 0;
const parentSlot = (slot: number): number => (slot - 1) >> 1;
const childSlots = (slot: number): readonly number[] => [2 * slot + 1, 2 * slot + 2];

export class FunctionTree {
  /** In the order of their making: the first one's root is the tree's. Never an empty array. */
  readonly #zones = new Map<string, string[]>();
  readonly #places = new Map<string, Place>();

  /**
   * A tree of these members, zone by zone, each in the order of its slots; repeats are left out.
   */
  static of(zones: Iterable<readonly [zone: string, ids: readonly string[]]>): FunctionTree {
    const tree = new FunctionTree();
    for (const [zone, ids] of zones) {
      for (const id of ids) {
        if (tree.size < TREE_MEMBERS_MAX && !tree.has(id)) tree.#append(id, zone);
      }
    }
    return tree;
  }

  get size(): number {
    return this.#places.size;
  }

  /** All members, by zone and slot. */
  *ids(): IterableIterator<string> {
    for (const slots of this.#zones.values()) yield* slots;
  }

  get root(): string | undefined {
    const [first] = this.#zones.values();
    return first?.[ROOT_SLOT];
  }

  has(id: string): boolean {
    return this.#places.has(id);
  }

  placeOf(id: string): Place {
    const place = this.#places.get(id);
    if (place === undefined) throw new DaemonError("not-found", `${id} is not in the tree`);
    return place;
  }

  /** Undefined for the root. */
  parentOf(id: string): string | undefined {
    const { zone, slot } = this.placeOf(id);
    if (slot !== ROOT_SLOT) return this.#zones.get(zone)?.[parentSlot(slot)];
    const { root } = this;
    return root === id ? undefined : root;
  }

  /** From the parent up to the root. */
  ancestorsOf(id: string): readonly string[] {
    const ancestors: string[] = [];
    let at = this.parentOf(id);
    while (at !== undefined) {
      ancestors.push(at);
      at = this.parentOf(at);
    }
    return ancestors;
  }

  /** Members between this one and the reader of the registry, that one included: 0 for the root. */
  depthOf(id: string): number {
    const { zone, slot } = this.placeOf(id);
    const [first] = this.#zones.keys();
    return 31 - Math.clz32(slot + 1) + (zone === first ? 0 : 1);
  }

  get zoneCount(): number {
    return this.#zones.size;
  }

  zoneSize(zone: string): number {
    return this.#zones.get(zone)?.length ?? 0;
  }

  /** The member that gets the next child of a zone; undefined: that will be a zone's first. */
  nextParent(zone: string): string | undefined {
    const slots = this.#zones.get(zone);
    return slots?.[parentSlot(slots.length)];
  }

  childrenOf(id: string): readonly string[] {
    const { zone, slot } = this.placeOf(id);
    const slots = this.#zones.get(zone) ?? [];
    const own = childSlots(slot).flatMap((child) => slots[child] ?? []);
    return id === this.root ? [...own, ...this.#otherZoneRoots()] : own;
  }

  /**
   * Puts a member at the zone's end. Joining twice changes nothing, unless the zone is another.
   * Throws `resource-exhausted`.
   */
  join(id: string, zone: string): readonly ParentChange[] {
    const place = this.#places.get(id);
    if (place?.zone === zone) return [];
    if (place === undefined && this.size >= TREE_MEMBERS_MAX) {
      throw new DaemonError("resource-exhausted", `a tree of ${TREE_MEMBERS_MAX} members is full`);
    }
    const slots = this.#zones.get(zone);
    if (slots === undefined && this.#zones.size >= TREE_ZONES_MAX) {
      throw new DaemonError("resource-exhausted", `a tree of ${TREE_ZONES_MAX} zones is full`);
    }
    const left = place === undefined ? [] : this.remove(id);
    const joined = this.#changing([id], () => {
      this.#append(id, zone);
    });
    return withoutRepeats([...left, ...joined]);
  }

  /**
   * Takes a member out. The child that holds most rises into its place where it holds more than the
   * last of the zone; the last fills the hole that is left. `heldBlocks`: 0 for the unknown.
   */
  remove(id: string, heldBlocks: (id: string) => number = () => 0): readonly ParentChange[] {
    const place = this.#places.get(id);
    if (place === undefined) return [];
    const { zone, slot } = place;
    const slots = this.#zones.get(zone) ?? [];
    const last = slots.at(-1) ?? id;
    const rising = this.#risingChild(slots, slot, last, heldBlocks);
    const moved = rising === undefined ? [last] : [last, rising];
    const changes = this.#changing([id, ...moved], () => {
      this.#places.delete(id);
      slots.length -= 1;
      if (slots.length === 0) this.#zones.delete(zone);
      let hole = slot;
      if (rising !== undefined) {
        hole = this.placeOf(rising).slot;
        this.#put({ zone, slot }, rising);
      }
      if (hole < slots.length) this.#put({ zone, slot: hole }, last);
    });
    return changes.filter((change) => change.id !== id);
  }

  /** Two members of one zone change places: a slow interior one and a quick leaf. */
  swap(one: string, other: string): readonly ParentChange[] {
    const [first, second] = [this.placeOf(one), this.placeOf(other)];
    if (first.zone !== second.zone) {
      throw new DaemonError("invalid-argument", `${one} and ${other} are in different zones`);
    }
    return this.#changing([one, other], () => {
      this.#put(first, other);
      this.#put(second, one);
    });
  }

  /** The zone's members without children, last first: candidates for a swap. */
  *leaves(zone: string): IterableIterator<string> {
    const slots = this.#zones.get(zone) ?? [];
    for (let slot = slots.length - 1; 2 * slot + 1 >= slots.length && slot >= 0; slot -= 1) {
      const id = slots[slot];
      if (id !== undefined) yield id;
    }
  }

  #risingChild(
    slots: readonly string[],
    slot: number,
    last: string,
    heldBlocks: (id: string) => number,
  ): string | undefined {
    let best: string | undefined;
    for (const child of childSlots(slot).flatMap((at) => slots[at] ?? [])) {
      if (child === last || heldBlocks(child) <= heldBlocks(best ?? last)) continue;
      best = child;
    }
    return best;
  }

  #append(id: string, zone: string): void {
    const slots = this.#zones.get(zone) ?? [];
    this.#zones.set(zone, slots);
    this.#put({ zone, slot: slots.length }, id);
  }

  #put(place: Place, id: string): void {
    const slots = this.#zones.get(place.zone);
    if (slots === undefined) throw new RangeError(`no zone ${place.zone}`);
    slots[place.slot] = id;
    this.#places.set(id, place);
  }

  #otherZoneRoots(): readonly string[] {
    return [...this.#zones.values()].slice(1).flatMap((slots) => slots[ROOT_SLOT] ?? []);
  }

  /** Does `change`, which moves `moved`, and says whose parent is another afterwards. */
  #changing(moved: readonly string[], change: () => void): readonly ParentChange[] {
    const rootBefore = this.root;
    const affected = new Set(moved);
    const before = new Map<string, string | undefined>();
    const note = (): void => {
      for (const id of moved) {
        if (this.has(id)) for (const child of this.childrenOf(id)) affected.add(child);
      }
    };
    note();
    for (const id of affected) if (this.has(id)) before.set(id, this.parentOf(id));
    const zoneRoots = this.#otherZoneRoots();
    change();
    note();
    if (this.root !== rootBefore) {
      for (const id of [...zoneRoots, ...this.#otherZoneRoots(), this.root ?? ""]) affected.add(id);
    }
    const changes: ParentChange[] = [];
    for (const id of affected) {
      if (!this.has(id)) continue;
      const parent = this.parentOf(id);
      if (!before.has(id) || before.get(id) !== parent) changes.push({ id, parent });
    }
    return changes;
  }
}

/** The last word on each member. */
function withoutRepeats(changes: readonly ParentChange[]): readonly ParentChange[] {
  return [...new Map(changes.map((change) => [change.id, change])).values()];
}
