/** A tree from what its members say of their places: how a deputy or a new manager gets one. */
import { FunctionTree } from "./function-tree.ts";
import { TREE_ZONES_MAX } from "./limits.ts";
import { compareEpochs } from "./messages.ts";
import type { TreeRecord } from "./tree-record.ts";

/**
 * Everybody keeps its place if it can. Of two that name one place the newer epoch has it; the
 * others, and those without a place, fill the holes, then those from the end do: so few members get
 * another parent.
 */
export function rebuildTree(records: Iterable<TreeRecord>): FunctionTree {
  const zones = new Map<string, TreeRecord[]>();
  for (const record of records) {
    const { zone } = record.ref;
    const members = zones.get(zone);
    if (members !== undefined) members.push(record);
    else if (zones.size < TREE_ZONES_MAX) zones.set(zone, [record]);
  }
  const ordered = [...zones].sort(([, one], [, other]) => compareZones(one, other));
  return FunctionTree.of(ordered.map(([zone, members]) => [zone, fillHoles(members)]));
}

/** The zone of the tree's root first: that whose first member says it has no parent. */
function compareZones(one: readonly TreeRecord[], other: readonly TreeRecord[]): number {
  const [root, otherRoot] = [rootOf(one), rootOf(other)];
  if (root?.seat !== undefined && otherRoot?.seat !== undefined) {
    return compareEpochs(otherRoot.seat.epoch, root.seat.epoch);
  }
  if ((root === undefined) !== (otherRoot === undefined)) return root === undefined ? 1 : -1;
  return other.length - one.length;
}

function rootOf(records: readonly TreeRecord[]): TreeRecord | undefined {
  let root: TreeRecord | undefined;
  for (const record of records) {
    if (record.seat?.slot !== 0 || record.seat.depth !== 0) continue;
    const isLater =
      root?.seat === undefined || compareEpochs(record.seat.epoch, root.seat.epoch) > 0;
    if (isLater) root = record;
  }
  return root;
}

function fillHoles(records: readonly TreeRecord[]): readonly string[] {
  const bySlot = new Map<number, TreeRecord>();
  const unplaced: TreeRecord[] = [];
  for (const record of records) {
    const slot = record.seat?.slot;
    // Beyond the end by more than the tree can have lost: a hole-filler at best.
    if (slot === undefined || slot >= 2 * records.length + SLOTS_LOST) {
      unplaced.push(record);
      continue;
    }
    const rival = bySlot.get(slot);
    if (rival === undefined) bySlot.set(slot, record);
    else {
      const wins = isNewerSeat(record, rival);
      bySlot.set(slot, wins ? record : rival);
      unplaced.push(wins ? rival : record);
    }
  }
  const placed = [...bySlot].sort(([one], [other]) => one - other);
  unplaced.reverse();
  const ids: string[] = [];
  let at = 0;
  for (let slot = 0; slot < records.length; slot += 1) {
    const next = placed[at];
    const isKept = next?.[0] === slot;
    if (isKept) at += 1;
    const chosen = isKept ? next[1] : (unplaced.pop() ?? placed.pop()?.[1]);
    if (chosen !== undefined) ids.push(chosen.ref.id);
  }
  return ids;
}

/** Members that may have died with the manager. */
const SLOTS_LOST = 64;

function isNewerSeat(one: TreeRecord, other: TreeRecord): boolean {
  if (one.seat === undefined || other.seat === undefined) return one.seat !== undefined;
  const order = compareEpochs(one.seat.epoch, other.seat.epoch);
  // With one epoch only a member that was moved and has not heard of it is wrong: either will do.
  return order === 0 ? one.ref.id < other.ref.id : order > 0;
}
