/** A tree as its manager sees it, for operators. */
import type { Epoch } from "./messages.ts";
import type { Office, OfficeRole } from "./office.ts";

export interface TreeMemberReport {
  readonly id: string;
  readonly zone: string;
  readonly slot: number;
  readonly depth: number;
  readonly parent?: string;
  readonly heldBlocks: number;
  readonly bytesPerSecond: number;
  /** Trees with traffic in which it feeds others. */
  readonly interior: number;
}

export interface ManagedTreeReport {
  readonly image: string;
  readonly role: OfficeRole;
  readonly epoch: Epoch;
  /** The member that stands in. */
  readonly deputy?: string;
  /** By zone and slot; empty unless this member is the manager. */
  readonly members: readonly TreeMemberReport[];
}

export function reportOf(office: Office): ManagedTreeReport {
  const { image, role, tree, deputy } = office;
  const members = role === "manager" ? [...tree.shape.ids()] : [];
  return {
    image,
    role,
    epoch: tree.epoch,
    ...(deputy === undefined ? {} : { deputy: deputy.id }),
    members: members.flatMap((id) => {
      const record = tree.get(id);
      if (record === undefined) return [];
      const { zone, slot } = tree.shape.placeOf(id);
      const parent = tree.shape.parentOf(id);
      const { heldBlocks, bytesPerSecond, interior } = record;
      const depth = tree.shape.depthOf(id);
      const member = { id, zone, slot, depth, heldBlocks, bytesPerSecond, interior };
      return [parent === undefined ? member : { ...member, parent }];
    }),
  };
}
