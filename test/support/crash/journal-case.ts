/**
 * A metastore under commands, crashed at every change of the disk: what a crash may leave is opened
 * again, and must hold every acknowledged transaction, each other one whole or not at all.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { silentLogger } from "../../../src/base/log.ts";
import { Metastore } from "../../../src/snapshotter/metastore/metastore.ts";
import type { Transaction } from "../../../src/snapshotter/metastore/metastore.ts";
import type { SnapshotRecord } from "../../../src/snapshotter/snapshot-info.ts";
import { Prng } from "../../fuzz/prng.ts";
import { CrashingDisk } from "../snapshotter/crashing-disk.ts";
import type { JournalOperation } from "../snapshotter/crashing-disk.ts";
import { FakeClock } from "../snapshotter/fake-clock.ts";
import { isSettled, SimDisk, systemError } from "./sim-disk.ts";
import type { DiskSnapshot } from "./sim-disk.ts";

/** Small, so that compactions happen within a few transactions. */
const COMPACT_BYTES = 900;
const LABEL = "containerd.io/snapshot/x";
const NAMES = ["a", "b", "c", "ns/7/k"] as const;

export type Command =
  | { readonly kind: "prepare" | "view"; readonly name: string; readonly parent: string }
  | { readonly kind: "commit"; readonly name: string; readonly key: string }
  | { readonly kind: "remove"; readonly name: string }
  | { readonly kind: "update"; readonly name: string; readonly label: string }
  | { readonly kind: "owner"; readonly uuid: string };

/** One is a group of calls at once; a failure is that of the disk under the group. */
export interface Group {
  readonly commands: readonly Command[];
  readonly failure: { readonly operation: JournalOperation; readonly code: string } | undefined;
}

const name = fc.constantFrom(...NAMES);
const command: fc.Arbitrary<Command> = fc.oneof(
  fc.record({
    kind: fc.constantFrom("prepare" as const, "view" as const),
    name,
    parent: fc.constantFrom("", ...NAMES),
  }),
  fc.record({ kind: fc.constant("commit" as const), name, key: name }),
  fc.record({ kind: fc.constant("remove" as const), name }),
  fc.record({
    kind: fc.constant("update" as const),
    name,
    label: fc.oneof(fc.string({ unit: "grapheme", maxLength: 20 }), fc.constant("x".repeat(1500))),
  }),
  fc.record({ kind: fc.constant("owner" as const), uuid: fc.uuid() }),
);
const failure = fc.option(
  fc.record({
    operation: fc.constantFrom<JournalOperation[]>("write", "sync", "rename", "folder"),
    code: fc.constantFrom("EIO", "ENOSPC"),
  }),
  { nil: undefined, freq: 4 },
);
export const groupsOf = (maxLength: number): fc.Arbitrary<Group[]> =>
  fc.array(fc.record({ commands: fc.array(command, { minLength: 1, maxLength: 3 }), failure }), {
    minLength: 1,
    maxLength,
  });

/** A transaction as it was run: what it wrote, and what became of it. */
interface Sent {
  readonly effects: [name: string, record: string | undefined][];
  readonly ids: number[];
  fate: "waiting" | "done" | "failed";
}

/** What a crash may leave at one moment. */
interface Moment {
  readonly snapshot: DiskSnapshot;
  /** The states that are allowed, and the last id that was given out for good. */
  readonly allowed: () => Model[];
  readonly idMax: number;
}

type Model = ReadonlyMap<string, string>;

class Run {
  readonly disk: CrashingDisk;
  readonly moments: Moment[] = [];
  readonly #sent: Sent[] = [];
  #base: readonly Model[];
  #idMax: number;

  constructor(disk: CrashingDisk, base: readonly Model[], idMax: number) {
    this.disk = disk;
    this.#base = base;
    this.#idMax = idMax;
    disk.disk.onChange = () => this.moments.push(this.#moment());
  }

  async open(): Promise<Metastore> {
    const metastore = await openMetastore(this.disk);
    const before = this.#base;
    // What was shown to somebody stays.
    const seen = stateOf(metastore);
    const text = textOf(seen);
    const isAllowed = before.some((model) => textOf(model) === text);
    if (!isAllowed) assert.fail(`opens with ${text}, none of ${before.map(textOf).join(" | ")}`);
    this.#base = [seen];
    return metastore;
  }

  async commands(metastore: Metastore, groups: readonly Group[]): Promise<void> {
    for (const group of groups) {
      if (group.failure !== undefined) {
        const { operation, code } = group.failure;
        this.disk.failNext = { operation, error: systemError(code, "as told") };
      }
      await Promise.all(group.commands.map((one) => this.#send(metastore, one)));
      this.disk.failNext = undefined;
    }
    await metastore[Symbol.asyncDispose]();
    this.moments.push(this.#moment());
  }

  async #send(metastore: Metastore, one: Command): Promise<void> {
    const sent: Sent = { effects: [], ids: [], fate: "waiting" };
    try {
      await metastore.transact((transaction) => {
        apply(metastore, noting(transaction, sent), one);
        this.#sent.push(sent);
      });
      sent.fate = "done";
      this.#idMax = Math.max(this.#idMax, ...sent.ids);
    } catch (error) {
      assert.ok(error instanceof Error, String(error));
      sent.fate = "failed";
    }
  }

  #moment(): Moment {
    const base = this.#base;
    const sent = this.#sent.map((one) => ({ ...one }));
    const allowed = (): Model[] => base.flatMap((model) => statesFrom(model, sent));
    return { snapshot: this.disk.disk.snapshot(), allowed, idMax: this.#idMax };
  }
}

/** Acknowledged ones, then any run of those that came after the last acknowledged one. */
function statesFrom(base: Model, sent: readonly Sent[]): Model[] {
  const last = sent.findLastIndex(({ fate }) => fate === "done");
  let model = base;
  for (const one of sent.slice(0, last + 1)) if (one.fate === "done") model = after(model, one);
  const tail = sent.slice(last + 1).filter(({ effects }) => effects.length > 0);
  const firstWaiting = tail.findIndex(({ fate }) => fate === "waiting");
  const states = [model];
  for (let from = 0; from < tail.length; from += 1) {
    // Without a failure in between, they come in order.
    const mayStart = from === 0 || from === firstWaiting || tail[from - 1]?.fate === "failed";
    if (!mayStart) continue;
    let next = model;
    for (const one of tail.slice(from)) {
      next = after(next, one);
      states.push(next);
    }
  }
  return states;
}

function after(model: Model, { effects }: Sent): Model {
  const next = new Map(model);
  for (const [key, value] of effects) {
    if (value === undefined) next.delete(key);
    else next.set(key, value);
  }
  return next;
}

function noting(transaction: Transaction, { effects, ids }: Sent): Transaction {
  return {
    get: (key) => transaction.get(key),
    hasChildren: (key) => transaction.hasChildren(key),
    now: () => transaction.now(),
    put: (record) => {
      transaction.put(record);
      ids.push(record.id);
      effects.push([record.name, recordText(record)]);
    },
    delete: (key) => {
      transaction.delete(key);
      effects.push([key, undefined]);
    },
    setOwner: (uuid) => {
      transaction.setOwner(uuid);
      effects.push(["", uuid]);
    },
  };
}

function apply(metastore: Metastore, transaction: Transaction, one: Command): void {
  if (one.kind === "owner") {
    transaction.setOwner(one.uuid);
    return;
  }
  const known = transaction.get(one.kind === "commit" ? one.key : one.name);
  const now = transaction.now();
  switch (one.kind) {
    case "prepare":
    case "view": {
      if (known !== undefined) throw new Error("refused");
      const parent = transaction.get(one.parent)?.kind === "committed" ? one.parent : "";
      const kind = one.kind === "view" ? "view" : "active";
      const record = { id: metastore.reserveId(), name: one.name, parent, kind } as const;
      transaction.put({ ...EMPTY, ...record, createdNs: now, updatedNs: now });
      return;
    }
    case "commit":
      if (known?.kind !== "active" || one.key === one.name) throw new Error("refused");
      if (transaction.get(one.name) !== undefined) throw new Error("refused");
      transaction.delete(one.key);
      transaction.put({ ...known, name: one.name, kind: "committed", updatedNs: now });
      return;
    case "remove":
      if (known === undefined || transaction.hasChildren(one.name)) throw new Error("refused");
      transaction.delete(one.name);
      return;
    case "update":
      if (known === undefined) throw new Error("refused");
      transaction.put({ ...known, labels: new Map([[LABEL, one.label]]), updatedNs: now });
  }
}

const EMPTY = { labels: new Map<string, string>(), chainId: undefined, usage: undefined };

async function openMetastore(files: CrashingDisk): Promise<Metastore> {
  const clock = new FakeClock();
  return Metastore.open({ files, clock, log: silentLogger, compactBytesMin: COMPACT_BYTES });
}

function recordText(record: SnapshotRecord): string {
  const { id, kind, parent, createdNs, updatedNs, labels } = record;
  return JSON.stringify([id, kind, parent, String(createdNs), String(updatedNs), [...labels]]);
}

function stateOf(metastore: Metastore): Model {
  const model = new Map<string, string>();
  for (const record of metastore.records()) model.set(record.name, recordText(record));
  if (metastore.owner !== undefined) model.set("", metastore.owner);
  return model;
}

function textOf(model: Model): string {
  return JSON.stringify([...model].toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

export interface JournalPlan {
  readonly first: readonly Group[];
  /** What is done after the first crash, and crashed again. */
  readonly second: readonly Group[];
  readonly seed: number;
}

export interface JournalCounts {
  crashPoints: number;
  states: number;
}

/**
 * Runs the first commands and opens `statesPerPoint` states of every crash point; from some of them
 * life goes on with the second commands, crashed in turn.
 */
export async function checkJournal(
  plan: JournalPlan,
  statesPerPoint: number,
  counts: JournalCounts,
): Promise<void> {
  const random = new Prng(plan.seed);
  const run = new Run(new CrashingDisk(), [new Map()], 0);
  run.disk.disk.syncAll();
  run.moments.length = 0;
  await run.commands(await run.open(), plan.first);
  for (const moment of run.moments) {
    for (const survivor of survivorsOf(moment, statesPerPoint, random)) {
      const isAgain = random.oneIn(20);
      await checkSurvivor(survivor, moment, isAgain ? plan.second : undefined, random, counts);
    }
    counts.crashPoints += 1;
  }
}

function survivorsOf({ snapshot }: Moment, count: number, random: Prng): SimDisk[] {
  const survivors = [SimDisk.afterKill(snapshot)];
  const cuts = isSettled(snapshot) ? Math.min(count, 1) : count;
  for (let at = 0; at < cuts; at += 1) survivors.push(SimDisk.afterPowerCut(snapshot, random));
  return survivors;
}

async function checkSurvivor(
  survivor: SimDisk,
  moment: Moment,
  again: readonly Group[] | undefined,
  random: Prng,
  counts: JournalCounts,
): Promise<void> {
  counts.states += 1;
  const run = new Run(new CrashingDisk(survivor), moment.allowed(), moment.idMax);
  const metastore = await run.open();
  const id = metastore.reserveId();
  assert.ok(id > moment.idMax, `id ${id} was given out before: ${moment.idMax}`);
  if (again === undefined) {
    // Life goes on: what is written now is read back, on top of what was recovered.
    const group: Group = { commands: [{ kind: "owner", uuid: "after" }], failure: undefined };
    await run.commands(metastore, [group]);
  } else {
    await run.commands(metastore, again);
  }
  const moments = again === undefined ? sample(run.moments, 3, random) : run.moments;
  for (const later of moments) {
    for (const second of survivorsOf(later, 1, random)) {
      counts.states += 1;
      const last = new Run(new CrashingDisk(second), later.allowed(), later.idMax);
      await (await last.open())[Symbol.asyncDispose]();
    }
  }
}

function sample<T>(items: readonly T[], count: number, random: Prng): T[] {
  return Array.from({ length: Math.min(count, items.length) }, () => random.pick(items));
}
