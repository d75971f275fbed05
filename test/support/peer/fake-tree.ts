/** A tree that does nothing, and says what it was given. */
import type { TreePort } from "../../../src/peer/node/tree-port.ts";
import type { TreeEffect, TreeInput, TreeMember } from "../../../src/peer/tree/index.ts";

export class FakeTree implements TreePort {
  /** But those of the kind `members`. */
  readonly inputs: TreeInput[] = [];
  members: readonly TreeMember[] = [];
  nextMs = Infinity;
  /** Returned by the next step. */
  effects: TreeEffect[] = [];

  step(input: TreeInput): readonly TreeEffect[] {
    if (input.kind === "members") this.members = input.list;
    else this.inputs.push(input);
    const { effects } = this;
    this.effects = [];
    return effects;
  }

  images(): readonly string[] {
    return [];
  }

  position(): undefined {
    return undefined;
  }

  managed(): readonly never[] {
    return [];
  }
}
