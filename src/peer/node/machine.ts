/**
 * What tells a copy of this machine from the original (transport/boot-id.ts). It is read right
 * before something is sent, so the reads are synchronous: two small files that the kernel has in
 * memory, and the list of interfaces.
 */
/* eslint-disable no-restricted-imports -- a clone has to know itself before its next packet */
import { closeSync, openSync, readSync } from "node:fs";
/* eslint-enable no-restricted-imports -- the end of the exception */
import { networkInterfaces } from "node:os";
import type { Clock } from "../../base/clock.ts";
import type { MachineState } from "../transport/boot-id.ts";

/** Where a hypervisor's generation id can be read: QEMU's own file, Xen's. */
const GENERATION_FILES = [
  "/sys/firmware/qemu_fw_cfg/by_name/etc/vmgenid_guid/raw",
  "/sys/hypervisor/uuid",
];
const MACHINE_ID_FILE = "/etc/machine-id";
const ID_BYTES_MAX = 64;
/**
 * Files and interfaces are read at most once in this time, ms. A copy's monotonic clock goes on
 * where the original's was saved, so one that was saved right after a reading sends for at most
 * this long before it reads again.
 */
const FRESH_MS = 20;
const NS_PER_MS = 1_000_000n;

type Slow = Pick<MachineState, "machineId" | "generationId"> & {
  readonly hosts: ReadonlySet<string>;
};

/** One for all nodes of a process. */
export class MachineReader {
  readonly #clock: Clock;
  /** Those that there are: a copy has the files that its original has. */
  readonly #generationFiles: readonly string[];
  #slow: Slow | undefined;
  #readMs = -Infinity;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#generationFiles = GENERATION_FILES.filter((path) => readId(path) !== "");
  }

  /** `host`: the address that the node says it has. */
  read(host: string): MachineState {
    const monotonicMs = this.#clock.nowMs();
    const wallMs = Number(this.#clock.wallNs() / NS_PER_MS);
    let slow = this.#slow;
    if (slow === undefined || monotonicMs - this.#readMs >= FRESH_MS) {
      slow = this.#readSlow();
      this.#slow = slow;
      this.#readMs = monotonicMs;
    }
    const { hosts, machineId, generationId } = slow;
    return { wallMs, monotonicMs, hasAddress: hosts.has(host), machineId, generationId };
  }

  #readSlow(): Slow {
    const lists = Object.values(networkInterfaces());
    const hosts = lists.flatMap((list) => list?.map(({ address }) => address) ?? []);
    const generationId = this.#generationFiles.map(readId).join("");
    return { hosts: new Set(hosts), machineId: readId(MACHINE_ID_FILE), generationId };
  }
}

function readId(path: string): string {
  let file: number | undefined;
  try {
    file = openSync(path, "r");
    const bytes = Buffer.alloc(ID_BYTES_MAX);
    return bytes.toString("hex", 0, readSync(file, bytes, 0, ID_BYTES_MAX, 0));
  } catch {
    return "";
  } finally {
    if (file !== undefined) closeSync(file);
  }
}
