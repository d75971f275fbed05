/**
 * What tells a copy of this machine from the original (transport/boot-id.ts). It is read right
 * before something is sent, so the reads are synchronous: files that the kernel has in memory, and
 * the list of interfaces.
 *
 * How soon each sign is seen: the clocks are compared at every read, so a copy whose wall clock was
 * set forward before its first packet sends none as the original; the hypervisor's generation id is
 * at most GENERATION_FRESH_MS old, machine id and interfaces at most FRESH_MS, both on a monotonic
 * clock that goes on in the copy where the original's was saved. Clocks that have parted, even by
 * far less than a clone sign, end all of that at once.
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
/** A generation id is not older than this, ms: it is what a copy has from its first moment on. */
const GENERATION_FRESH_MS = 20;
/**
 * Machine id and interfaces are not older than this, ms: what changes them in a copy runs there
 * after it was resumed. The list of interfaces costs as much as handling a packet does.
 */
const FRESH_MS = 1000;
/** Wall and monotonic clock that part by more than this, ms, since the last reading end it. */
const APART_MS = 50;
const NS_PER_MS = 1_000_000n;

/** What a machine is read from: the real files and interfaces, or a test's. */
export interface MachineSource {
  /** Addresses of all interfaces. */
  hosts(): ReadonlySet<string>;
  /** Empty: not readable. */
  machineId(): string;
  generationId(): string;
}

interface Slow {
  readonly hosts: ReadonlySet<string>;
  readonly machineId: string;
  readonly readMs: number;
  /** The wall clock less the monotonic one, ms. */
  readonly offsetMs: number;
}

/** One for all nodes of a process. */
export class MachineReader {
  readonly #clock: Clock;
  readonly #source: MachineSource;
  #slow: Slow | undefined;
  #generationId = "";
  #generationMs = -Infinity;

  constructor(clock: Clock, source: MachineSource = new SystemMachine()) {
    this.#clock = clock;
    this.#source = source;
  }

  /** `host`: the address that the node says it has. */
  read(host: string): MachineState {
    const monotonicMs = this.#clock.nowMs();
    const wallMs = Number(this.#clock.wallNs() / NS_PER_MS);
    const offsetMs = wallMs - monotonicMs;
    let slow = this.#slow;
    const isApart = slow !== undefined && Math.abs(offsetMs - slow.offsetMs) > APART_MS;
    if (isApart || monotonicMs - this.#generationMs >= GENERATION_FRESH_MS) {
      this.#generationId = this.#source.generationId();
      this.#generationMs = monotonicMs;
    }
    if (slow === undefined || isApart || monotonicMs - slow.readMs >= FRESH_MS) {
      const [hosts, machineId] = [this.#source.hosts(), this.#source.machineId()];
      slow = { hosts, machineId, readMs: monotonicMs, offsetMs };
      this.#slow = slow;
    }
    const { hosts, machineId } = slow;
    const generationId = this.#generationId;
    return { wallMs, monotonicMs, hasAddress: hosts.has(host), machineId, generationId };
  }
}

class SystemMachine implements MachineSource {
  /**
   * Those that there are, open for as long as the process runs: the kernel answers each read anew,
   * and a copy has the files that its original has.
   */
  readonly #generationFiles: readonly number[];
  readonly #bytes = Buffer.alloc(ID_BYTES_MAX);

  constructor() {
    const files = GENERATION_FILES.map(open);
    this.#generationFiles = files.flatMap((file) => (file === undefined ? [] : [file]));
  }

  hosts(): ReadonlySet<string> {
    const lists = Object.values(networkInterfaces());
    return new Set(lists.flatMap((list) => list?.map(({ address }) => address) ?? []));
  }

  /** Opened anew: whoever changes it may put another file there. */
  machineId(): string {
    const file = open(MACHINE_ID_FILE);
    if (file === undefined) return "";
    try {
      return this.#read(file);
    } finally {
      closeSync(file);
    }
  }

  generationId(): string {
    let id = "";
    for (const file of this.#generationFiles) id += this.#read(file);
    return id;
  }

  #read(file: number): string {
    try {
      return this.#bytes.toString("hex", 0, readSync(file, this.#bytes, 0, ID_BYTES_MAX, 0));
    } catch {
      return "";
    }
  }
}

function open(path: string): number | undefined {
  try {
    return openSync(path, "r");
  } catch {
    return undefined;
  }
}
