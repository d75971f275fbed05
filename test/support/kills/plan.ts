/** Which processes are killed when, and over which images: all of it follows from the seed. */
import { Prng } from "../../fuzz/prng.ts";

export const PHASES = ["pull", "start", "read", "remove"] as const;
export type Phase = (typeof PHASES)[number];

export const ROLES = ["main", "image-service", "keeper"] as const;
export type Role = (typeof ROLES)[number];

/** Every one, and any two. */
export const VICTIMS: readonly (readonly Role[])[] = [
  ["main"],
  ["image-service"],
  ["keeper"],
  ["main", "image-service"],
  ["main", "keeper"],
  ["image-service", "keeper"],
];

export interface Kill {
  /** From 1. */
  readonly number: number;
  /** Rounds use one image each, from 0. */
  readonly round: number;
  readonly phase: Phase;
  /** In the order of their deaths. */
  readonly victims: readonly Role[];
  /** When, as a part of the phase's length without a kill. */
  readonly moment: number;
  /** Between the deaths of two. */
  readonly gapMs: number;
}

/** A phase under load takes longer than it was measured. */
const MOMENT_MAX = 1.1;
/** Two that die at once, and one that dies while the other one is being replaced. */
const GAPS_MS = [0, 0, 20, 100, 300];
const FRACTIONS = 1_000_000;

export function planOf(seed: number, kills: number): readonly Kill[] {
  const random = new Prng(seed);
  // Every victim comes up as often as the others: a shuffled pack, dealt again and again.
  let pack: (readonly Role[])[] = [];
  return Array.from({ length: kills }, (_, at): Kill => {
    if (pack.length === 0) pack = shuffled(VICTIMS, random);
    const victims = pack.pop() ?? ["main"];
    return {
      number: at + 1,
      round: Math.floor(at / PHASES.length),
      phase: PHASES[at % PHASES.length] ?? "pull",
      victims: random.oneIn(2) ? victims : [...victims].reverse(),
      moment: (random.below(FRACTIONS) / FRACTIONS) * MOMENT_MAX,
      gapMs: victims.length > 1 ? random.pick(GAPS_MS) : 0,
    };
  });
}

function shuffled<T>(items: readonly T[], random: Prng): T[] {
  const order = [...items];
  for (let at = order.length - 1; at > 0; at -= 1) {
    const other = random.below(at + 1);
    const [one, two] = [order[at], order[other]];
    if (one !== undefined && two !== undefined) [order[at], order[other]] = [two, one];
  }
  return order;
}

/** Whole rounds, so that each part can be done for itself. */
export function partsOf(plan: readonly Kill[], jobs: number): readonly (readonly Kill[])[] {
  const rounds = Math.ceil(plan.length / PHASES.length / jobs);
  return Array.from({ length: jobs }, (_, job) =>
    plan.filter(({ round }) => Math.floor(round / rounds) === job),
  );
}

/** For people: `kill 17: keeper, then main +20 ms, 43% into read`. */
export function describeKill({ number, victims, gapMs, phase, moment }: Kill): string {
  const who = victims.join(gapMs === 0 ? " and " : `, ${gapMs} ms later `);
  return `kill ${number}: ${who}, ${Math.round(moment * 100)}% into ${phase}`;
}
