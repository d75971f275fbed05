/** What has to hold of the trees of a simulation. */
import { TREE_DEPTH_MAX } from "../../../src/peer/tree/limits.ts";
import type { TreeSim, TreeSimNode } from "./tree-sim.ts";

/** The digest of an image that does not exist. */
export function imageOf(number: number): string {
  return `sha256:${number.toString(16).padStart(64, "0")}`;
}

/** Running members that want to be in the image's tree. */
export function membersOf(sim: TreeSim, image: string): readonly TreeSimNode[] {
  return sim.running().filter(({ agent }) => agent.images().includes(image));
}

/** Running members that take themselves for the root. */
export function rootsOf(sim: TreeSim, image: string): readonly string[] {
  return sim
    .running()
    .filter(({ agent }) => agent.position(image)?.isRoot === true)
    .map(({ ref }) => ref.id);
}

/**
 * Members whose request, passed on from parent to parent, would come back to one that passed it.
 */
export function loopsOf(sim: TreeSim, image: string): readonly string[] {
  const loops: string[] = [];
  for (const { ref } of membersOf(sim, image)) {
    const passed = new Set<string>();
    let at: string | undefined = ref.id;
    while (at !== undefined && !passed.has(at)) {
      passed.add(at);
      const node = sim.nodes.get(at);
      // Who does not run passes nothing on.
      const isRunning = node?.isDown === false && node.pausedUntilMs <= sim.nowMs;
      at = isRunning ? node.agent.position(image)?.parent?.id : undefined;
    }
    if (at !== undefined) loops.push(ref.id);
    if (passed.size > TREE_DEPTH_MAX + 1) throw new Error(`${passed.size} members in a row`);
  }
  return loops;
}

/** What is wrong with a tree that should be whole; empty: nothing. `of`: one side of a cut. */
export function faultsOf(
  sim: TreeSim,
  image: string,
  of: (node: TreeSimNode) => boolean = () => true,
): readonly string[] {
  const faults: string[] = [];
  const members = membersOf(sim, image).filter(of);
  const ids = members.map(({ ref }) => ref.id);
  const managers = sim
    .running()
    .filter(of)
    .flatMap(({ ref, agent }) =>
      agent
        .managed()
        .filter(
          (tree) => tree.image === image && tree.role === "manager" && tree.members.length > 0,
        )
        .map((tree) => ({ id: ref.id, tree })),
    );
  const [first] = managers;
  if (managers.length !== 1)
    faults.push(`managers: ${managers.map(({ id }) => id).join() || "none"}`);
  const kept = first?.tree.members.map(({ id }) => id) ?? [];
  const missing = ids.filter((id) => !kept.includes(id));
  const strange = kept.filter((id) => !ids.includes(id));
  if (missing.length > 0) faults.push(`not in the tree: ${missing.slice(0, 5).join()}`);
  if (strange.length > 0) faults.push(`in the tree without right: ${strange.slice(0, 5).join()}`);
  const parents = new Map(first?.tree.members.map(({ id, parent }) => [id, parent]));
  const zones = new Set(members.map(({ ref }) => ref.zone)).size;
  const deepest = Math.ceil(Math.log2(members.length + 1)) + (zones > 1 ? 1 : 0);
  for (const { ref, agent } of members) {
    const position = agent.position(image);
    if (position === undefined) {
      faults.push(`${ref.id} has no position`);
      continue;
    }
    if (position.parent?.id !== parents.get(ref.id)) {
      faults.push(
        `${ref.id} has parent ${position.parent?.id ?? "none"}, not ${parents.get(ref.id) ?? "none"}`,
      );
    }
    for (const near of [position.parent, position.grandparent, position.root]) {
      const node = near === undefined ? undefined : sim.nodes.get(near.id);
      if (near !== undefined && (node?.isDown !== false || node.ref.boot !== near.boot)) {
        faults.push(`${ref.id} is to ask ${near.id}, which is gone`);
      }
    }
    if (position.depth > deepest) faults.push(`${ref.id} is ${position.depth} deep`);
    if (position.epoch.manager !== first?.id) faults.push(`${ref.id} has another manager`);
  }
  const roots = rootsOf(sim, image).filter((id) => of(sim.node(id)));
  if (members.length > 0 && roots.length !== 1) faults.push(`roots: ${roots.join()}`);
  if (loopsOf(sim, image).some((id) => ids.includes(id))) faults.push("a loop");
  return faults;
}

/** Runs until nothing is wrong; how long that took. Throws with the seed and what is wrong. */
export function settle(
  sim: TreeSim,
  image: string,
  { limitMs, of }: { readonly limitMs: number; readonly of?: (node: TreeSimNode) => boolean },
): number {
  const startMs = sim.nowMs;
  for (;;) {
    const faults = faultsOf(sim, image, of);
    if (faults.length === 0) return sim.nowMs - startMs;
    if (sim.nowMs - startMs >= limitMs) {
      const what = faults.slice(0, 8).join("; ");
      throw new Error(
        `after ${limitMs} ms: ${what}. To see it again: TREE_SEED=${sim.options.seed}`,
      );
    }
    sim.run(100);
  }
}

/** The seeds that a simulation is run with: TREE_SEED=7, or TREE_SEEDS=100 for 1 to 100. */
export function seedsOf(count: number): readonly number[] {
  const { TREE_SEED: one, TREE_SEEDS: many } = process.env;
  if (one !== undefined) return [Number(one)];
  const seeds = many === undefined ? count : Number(many);
  return Array.from({ length: seeds }, (_, index) => index + 1);
}
