/**
 * Whether a way of mounting keeps its reads right when they are cut short: a file whose device
 * fails and stalls on order. What is wrong comes back in words, for people.
 */
import type { ByteRange } from "../base/range-set.ts";

export const CHECKED_BYTES = 8 * 1024 * 1024;
const BLOCK_BYTES = 512;
const PAGE_BYTES = 4096;
/** Read after a fault. */
const AFTER_BYTES = 256 * 1024;
/**
 * Where the device fails and stalls, and how many pages before it the reader begins: odd numbers,
 * because the kernel reads in powers of two, and a fault at a request's very begin shows nothing.
 */
const FAILING: readonly FaultPlace[] = [
  { page: 293, pagesBefore: 133 },
  { page: 585, pagesBefore: 139 },
];
const STALLING: readonly FaultPlace[] = [
  { page: 1001, pagesBefore: 133 },
  { page: 1513, pagesBefore: 139 },
];

interface FaultPlace {
  readonly page: number;
  readonly pagesBefore: number;
}

/** The file as this process reads it. */
export interface CheckedFile {
  read(
    buffer: Uint8Array,
    at: number,
    length: number,
    position: number,
  ): Promise<{ readonly bytesRead: number }>;
}

/** Its device. Each order resolves when it holds. */
export interface FaultyDevice {
  /** Reads that touch the range fail. */
  fail(range: ByteRange): Promise<void>;
  /** A process reads `range` and is killed when its read of `stalling` waits. */
  killReader(range: ByteRange, stalling: ByteRange): Promise<void>;
  /** Everything can be read again, and what waited is answered. */
  clear(): Promise<void>;
}

function rangesOf({ page, pagesBefore }: FaultPlace): { fault: ByteRange; read: ByteRange } {
  const start = page * PAGE_BYTES;
  return {
    fault: { start, end: start + PAGE_BYTES },
    read: { start: start - pagesBefore * PAGE_BYTES, end: start + AFTER_BYTES },
  };
}

/** What is wrong, or undefined. */
export async function findFault(
  file: CheckedFile,
  device: FaultyDevice,
): Promise<string | undefined> {
  return (await findErrorFault(file, device)) ?? (await findKillFault(file, device));
}

/** A read that fails after a good part must fail, and be right once its source is. */
async function findErrorFault(
  file: CheckedFile,
  device: FaultyDevice,
): Promise<string | undefined> {
  for (const place of FAILING) {
    const { fault, read } = rangesOf(place);
    await device.fail(fault);
    let errors = 0;
    for (let offset = read.start; offset < read.end; offset += PAGE_BYTES) {
      const outcome = await checkRead(file, { start: offset, end: offset + PAGE_BYTES });
      if (outcome === "wrong") return "a read that failed came back as wrong data";
      if (outcome === "error") errors += 1;
    }
    await device.clear();
    if (errors === 0) return "a read error was not passed on";
    const healed = await checkRead(file, read);
    if (healed !== "right") return "a read that failed left wrong data in the page cache";
  }
  return undefined;
}

/** A reader killed while it waits must leave nothing behind. */
async function findKillFault(file: CheckedFile, device: FaultyDevice): Promise<string | undefined> {
  for (const place of STALLING) {
    const { fault, read } = rangesOf(place);
    await device.killReader(read, fault);
    await device.clear();
    const healed = await checkRead(file, read);
    if (healed !== "right") return "a killed reader left wrong data in the page cache";
  }
  return undefined;
}

async function checkRead(
  file: CheckedFile,
  { start: offset, end }: ByteRange,
): Promise<"right" | "wrong" | "error"> {
  const length = end - offset;
  const buffer = Buffer.alloc(length);
  try {
    for (let done = 0; done < length;) {
      const { bytesRead } = await file.read(buffer, done, length - done, offset + done);
      if (bytesRead === 0) return "wrong"; // an end where there is none
      done += bytesRead;
    }
  } catch {
    return "error";
  }
  // As the device's server fills it: no block is zeros.
  for (let at = 0; at < length; at += 4) {
    const expected = Math.floor((offset + at) / BLOCK_BYTES) + 1;
    if (buffer.readUInt32LE(at) !== expected) return "wrong";
  }
  return "right";
}
