/**
 * Many real nodes on this machine's loopback, several in each of a few processes: they start within
 * a second and have to know each other soon. FAASNET_TEST_MEMBERS sets their number; 1000 is the
 * long run, and needs two free cores for a minute. FAASNET_TEST_FIGURES=1 prints what was measured.
 */
import assert from "node:assert/strict";
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { systemClock } from "../../../src/base/clock.ts";
import type { FleetCommand, FleetStatus } from "../../support/peer/fleet-process.ts";

const MEMBERS = Number(process.env["FAASNET_TEST_MEMBERS"] ?? 100);
const PRINTS = process.env["FAASNET_TEST_FIGURES"] === "1";
const SEEDS = 3;
const PROCESSES = MEMBERS > 200 ? 4 : 2;
const KNOWN_AFTER_MS = 30_000;
/** A process that waited for the processor for more than this share of the time tells nothing. */
const STARVED_SHARE_MAX = 0.25;
const { signal } = new AbortController();

class FleetProcess {
  readonly child: ChildProcess;

  constructor() {
    const program = new URL("../../support/peer/fleet-process.js", import.meta.url);
    this.child = fork(program, { stdio: ["ignore", "ignore", "inherit", "ipc"] });
  }

  async ask(command: FleetCommand): Promise<FleetStatus> {
    this.child.send(command);
    const [answer] = (await once(this.child, "message")) as [FleetStatus | { error: string }];
    if ("error" in answer) throw new Error(answer.error);
    return answer;
  }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, "exit");
    this.child.send({ kind: "stop" });
    const stopTimer = systemClock.timer(10_000, () => this.child.kill("SIGKILL"));
    await ended;
    stopTimer();
  }
}

interface Figures {
  readonly sinceMs: number;
  readonly least: number;
  /** Of all pairs, how many know each other. */
  readonly share: number;
  readonly roots: number;
  readonly placed: number;
  readonly cpuMs: number;
  /** Of the process that waited longest for the processor. */
  readonly starvedShare: number;
}

async function measure(fleets: readonly FleetProcess[], startMs: number): Promise<Figures> {
  const all = await Promise.all(fleets.map((fleet) => fleet.ask({ kind: "status" })));
  const sum = (of: (one: FleetStatus) => number): number =>
    all.reduce((total, one) => total + of(one), 0);
  const sinceMs = systemClock.nowMs() - startMs;
  return {
    sinceMs,
    least: Math.min(...all.map(({ least }) => least)),
    share: sum((one) => one.sum) / MEMBERS ** 2,
    roots: sum(({ roots }) => roots.length),
    placed: sum(({ placedMs }) => placedMs.length),
    cpuMs: sum(({ cpuMs }) => cpuMs),
    starvedShare: Math.max(...all.map(({ starvedMs }) => starvedMs)) / sinceMs,
  };
}

function print(figures: Figures): void {
  const { sinceMs, least, share, roots, placed, cpuMs, starvedShare } = figures;
  if (!PRINTS) return;
  const percent = (share * 100).toFixed(2);
  process.stdout.write(
    `      ${(sinceMs / 1000).toFixed(1)} s: views ${percent} %, least ${least}, ` +
      `roots ${roots}, placed ${placed}, cpu ${(cpuMs / 1000).toFixed(1)} s, ` +
      `starved ${(starvedShare * 100).toFixed(0)} %\n`,
  );
}

describe(`${MEMBERS} members on loopback`, function () {
  this.timeout(240_000);
  let fleets: readonly FleetProcess[] = [];

  afterEach(async () => {
    await Promise.all(fleets.map((fleet) => fleet.stop()));
  });

  it(`know each other within ${KNOWN_AFTER_MS / 1000} s of starting within 1 s`, async function () {
    fleets = Array.from({ length: PROCESSES }, () => new FleetProcess());
    const [first, ...others] = fleets;
    assert.ok(first !== undefined);
    await Promise.all(others.map((fleet) => fleet.ask({ kind: "status" })));
    const { addresses: seeds } = await first.ask({
      ...{ kind: "add", prefix: "seed", count: SEEDS, overMs: 0, seeds: [] },
    });
    const newcomers = MEMBERS - SEEDS;
    const startMs = systemClock.nowMs();
    await Promise.all(
      fleets.map((fleet, index) => {
        const from = Math.floor((newcomers * index) / PROCESSES);
        const to = Math.floor((newcomers * (index + 1)) / PROCESSES);
        return fleet.ask({
          ...{ kind: "add", prefix: `n${index}-`, count: to - from, overMs: 1000, seeds },
        });
      }),
    );
    let figures = await measure(fleets, startMs);
    print(figures);
    while (figures.least < MEMBERS && figures.sinceMs < 2 * KNOWN_AFTER_MS) {
      await systemClock.sleep(1000, { signal });
      figures = await measure(fleets, startMs);
      print(figures);
    }
    const isKnown = figures.least === MEMBERS && figures.sinceMs <= 1000 + KNOWN_AFTER_MS;
    if (!isKnown && figures.starvedShare > STARVED_SHARE_MAX) {
      process.stdout.write("      skipped: others had the processor\n");
      this.skip();
    }
    assert.equal(figures.least, MEMBERS);
    assert.ok(figures.sinceMs <= 1000 + KNOWN_AFTER_MS, `it took ${figures.sinceMs} ms`);
    const statuses = await Promise.all(fleets.map((fleet) => fleet.ask({ kind: "status" })));
    const placedMs = statuses.flatMap((one) => one.placedMs).sort((one, other) => one - other);
    if (PRINTS) {
      const at = (share: number): string =>
        (placedMs[Math.floor(share * (placedMs.length - 1))] ?? 0).toFixed(0);
      const memory = statuses.map(({ memoryMiB }) => memoryMiB.toFixed(0)).join(", ");
      process.stdout.write(
        `      placed after p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, last ${at(1)} ms; ` +
          `memory ${memory} MiB\n`,
      );
    }
  });
});
