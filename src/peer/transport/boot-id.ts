/**
 * The boot id: drawn at every start, and again when this process finds itself in a copy of the
 * machine that it was started on. Two copies of a running VM hold the same keys and counters; if
 * both sealed a packet with them, one nonce would be used twice (seal.ts).
 */
import { createHash } from "node:crypto";
import type { Random } from "../../base/random.ts";

/** What a copy of a machine differs in from its original, sooner or later. */
export interface MachineState {
  /** Wall clock, ms since 1970. */
  readonly wallMs: number;
  /** Monotonic clock, ms; it stands still while a machine is saved. */
  readonly monotonicMs: number;
  /** Whether an interface has the address that this node says it has; undefined: not known. */
  readonly hasAddress: boolean | undefined;
  /** /etc/machine-id; empty: not readable. */
  readonly machineId: string;
  /** What the hypervisor changes for each copy (VM generation id); empty: not readable. */
  readonly generationId: string;
}

export type CloneSign = "generation-id" | "machine-id" | "address" | "clock-jump";

/**
 * The wall clock may be this far from where the monotonic one says it is, ms. A clock that is set
 * by more looks like a resumed copy; the price is one new boot id.
 */
export const CLOCK_JUMP_MS_MAX = 2000;
const BOOT_ID_BYTES = 16;

/** Why the machine is probably a copy or was resumed since `before`; undefined: it was not. */
export function cloneSign(before: MachineState, now: MachineState): CloneSign | undefined {
  if (isOther(before.generationId, now.generationId)) return "generation-id";
  if (isOther(before.machineId, now.machineId)) return "machine-id";
  if (before.hasAddress === true && now.hasAddress === false) return "address";
  const jumpMs = now.wallMs - before.wallMs - (now.monotonicMs - before.monotonicMs);
  return Math.abs(jumpMs) > CLOCK_JUMP_MS_MAX ? "clock-jump" : undefined;
}

/** An id that cannot be read any more says nothing. */
function isOther(before: string, now: string): boolean {
  return before !== "" && now !== "" && before !== now;
}

/**
 * 32 hex digits. A copied process draws the same random numbers as its original until the kernel
 * or OpenSSL take new entropy in, so everything that tells the copies apart is mixed in as well.
 */
export function newBootId(random: Random, machine: MachineState): string {
  const hash = createHash("sha256").update(random.bytes(2 * BOOT_ID_BYTES));
  return hash
    .update(JSON.stringify(machine))
    .digest("hex")
    .slice(0, 2 * BOOT_ID_BYTES);
}
