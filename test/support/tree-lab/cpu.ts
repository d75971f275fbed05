/** Processor time, of the machine and of processes. */
import { readFile } from "node:fs/promises";

/** USER_HZ: jiffies a second in /proc. Source: proc(5). */
const JIFFIES_PER_SECOND = 100;

export interface MachineTime {
  /** Of all processors, in seconds since the machine's start. */
  readonly busySeconds: number;
  readonly idleSeconds: number;
}

export async function machineTime(): Promise<MachineTime> {
  const [line = ""] = (await readFile("/proc/stat", "latin1")).split("\n");
  const [user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, soft = 0] = line
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return {
    busySeconds: (user + nice + system + irq + soft) / JIFFIES_PER_SECOND,
    idleSeconds: (idle + wait) / JIFFIES_PER_SECOND,
  };
}

/** The part of the processors' time that nobody used between two moments, 0 to 1. */
export function idleShare(from: MachineTime, to: MachineTime): number {
  const idle = to.idleSeconds - from.idleSeconds;
  const all = idle + to.busySeconds - from.busySeconds;
  return all <= 0 ? 1 : idle / all;
}

/** Seconds that a process has used, with its children that have ended; 0 when it is gone. */
export async function processSeconds(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, "latin1").catch(() => "");
  // The name before the bracket may hold anything; state is the first field after it.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const jiffies = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
  return jiffies / JIFFIES_PER_SECOND;
}
