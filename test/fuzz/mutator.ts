/** Changes valid inputs; a change depends on the random numbers alone. */
import type { Prng } from "./prng.ts";
import { INPUT_BYTES_MAX } from "./target.ts";
import type { FuzzTarget } from "./target.ts";

/** Changes of one input at most. */
const CHANGES_MAX = 16;
const SLICE_BYTES_MAX = 1024;
/** A run in this many gets a seed as it is. */
const UNCHANGED_ONE_IN = 64;

const BYTES = [0, 1, 0x7f, 0x80, 0xff, 0x20, 0x0a, 0x2f] as const;
const INTEGERS = [
  0n,
  1n,
  -1n,
  0x7fn,
  0x80n,
  0xffn,
  0x100n,
  0x1ffn,
  0x200n,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x10000n,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  0x1f_ffff_ffff_ffffn,
  0x20_0000_0000_0000n,
  0x7fff_ffff_ffff_ffffn,
] as const;
const TEXTS = [
  ...Array.from("\"'{}[]:,=/\\@.-+%*&|~!?#<>()$^"),
  "null",
  "true",
  "[]",
  "{}",
  '""',
  "-1",
  "1e999",
  "0.5",
  "9007199254740993",
  "18446744073709551616",
  '"__proto__":',
  '"constructor":',
  "\\u0000",
  "\\ud800",
  "../",
  "\0",
  "\r\n",
  "\u{1f600}",
] as const;

type Change = (bytes: Buffer, random: Prng, seeds: readonly Uint8Array[]) => Buffer;

function at(bytes: Buffer, random: Prng): number {
  return random.below(Math.max(bytes.length, 1));
}

function sliceLength(random: Prng): number {
  return 1 + random.below(random.oneIn(4) ? SLICE_BYTES_MAX : 16);
}

function insert(bytes: Buffer, position: number, piece: Uint8Array): Buffer {
  return Buffer.concat([bytes.subarray(0, position), piece, bytes.subarray(position)]);
}

const flipBit: Change = (bytes, random) => {
  const position = at(bytes, random);
  if (position < bytes.length) bytes[position] = (bytes[position] ?? 0) ^ (1 << random.below(8));
  return bytes;
};

const setByte: Change = (bytes, random) => {
  const value = random.oneIn(3) ? random.below(256) : random.pick(BYTES);
  const position = at(bytes, random);
  if (position < bytes.length) bytes[position] = value;
  return bytes;
};

const setInteger: Change = (bytes, random) => {
  const width = random.pick([2, 4, 8] as const);
  if (bytes.length < width) return bytes;
  const aligned = random.oneIn(2) ? width : 1;
  const position = random.below(Math.floor((bytes.length - width) / aligned) + 1) * aligned;
  const near = BigInt(bytes.length + random.below(5) - 2);
  const integer = random.oneIn(4) ? near : random.pick(INTEGERS);
  const value = BigInt.asUintN(8 * width, integer + (random.oneIn(4) ? -1n : 0n));
  const isLittle = random.oneIn(2);
  for (let index = 0; index < width; index += 1) {
    const shift = BigInt(8 * (isLittle ? index : width - 1 - index));
    bytes[position + index] = Number((value >> shift) & 0xffn);
  }
  return bytes;
};

/** A small step of what is there: sizes that are off by a little. */
const addToInteger: Change = (bytes, random) => {
  const position = at(bytes, random);
  if (position >= bytes.length) return bytes;
  bytes[position] = (bytes[position] ?? 0) + random.below(33) - 16;
  return bytes;
};

const insertBytes: Change = (bytes, random) => {
  const piece = Buffer.alloc(sliceLength(random), random.pick(BYTES));
  if (random.oneIn(2)) piece.forEach((_, index) => (piece[index] = random.below(256)));
  return insert(bytes, at(bytes, random), piece);
};

const insertText: Change = (bytes, random) =>
  insert(bytes, at(bytes, random), Buffer.from(random.pick(TEXTS)));

const remove: Change = (bytes, random) => {
  const start = at(bytes, random);
  return Buffer.concat([bytes.subarray(0, start), bytes.subarray(start + sliceLength(random))]);
};

const duplicate: Change = (bytes, random) => {
  const start = at(bytes, random);
  const slice = bytes.subarray(start, start + sliceLength(random));
  const times = random.oneIn(8) ? 1 + random.below(64) : 1;
  const piece = Buffer.concat(Array.from({ length: times }, () => slice));
  return insert(bytes, random.oneIn(2) ? start : at(bytes, random), piece);
};

const overwrite: Change = (bytes, random) => {
  const start = at(bytes, random);
  const slice = Buffer.from(bytes.subarray(start, start + sliceLength(random)));
  slice.copy(bytes, at(bytes, random));
  return bytes;
};

const truncate: Change = (bytes, random) => bytes.subarray(0, at(bytes, random));

const splice: Change = (bytes, random, seeds) => {
  const other = Buffer.from(random.pick(seeds));
  const start = at(other, random);
  const piece = random.oneIn(2)
    ? other.subarray(start)
    : other.subarray(start, start + sliceLength(random));
  const head = bytes.subarray(0, at(bytes, random));
  return random.oneIn(2) ? Buffer.concat([head, piece]) : insert(bytes, head.length, piece);
};

/** Replaces a run of decimal digits by another number. */
const setDigits: Change = (bytes, random) => {
  const isDigit = (value: number | undefined): boolean =>
    value !== undefined && value >= 0x30 && value <= 0x39;
  let start = at(bytes, random);
  while (start < bytes.length && !isDigit(bytes[start])) start += 1;
  let end = start;
  while (isDigit(bytes[end])) end += 1;
  const integer = random.oneIn(2) ? BigInt(random.uint32()) : random.pick(INTEGERS);
  const number = random.oneIn(3) ? integer.toString(8) : integer.toString();
  const text = random.oneIn(2) ? number : number.slice(-(end - start)).padStart(end - start, "0");
  return Buffer.concat([bytes.subarray(0, start), Buffer.from(text), bytes.subarray(end)]);
};

const CHANGES: readonly Change[] = [
  flipBit,
  flipBit,
  setByte,
  setByte,
  setInteger,
  setInteger,
  addToInteger,
  insertBytes,
  insertText,
  remove,
  duplicate,
  overwrite,
  truncate,
  splice,
  setDigits,
];

/** Most inputs are changed a little: those get furthest. */
function changeCount(random: Prng): number {
  let count = 1;
  while (count < CHANGES_MAX && !random.oneIn(2)) count += 1;
  return count;
}

/** The input of a run; `random` is the run's own. */
export function mutate(target: FuzzTarget, seeds: readonly Uint8Array[], random: Prng): Buffer {
  let bytes: Buffer = Buffer.from(random.pick(seeds));
  if (random.oneIn(UNCHANGED_ONE_IN)) return bytes;
  for (let left = changeCount(random); left > 0; left -= 1) {
    bytes = random.pick(CHANGES)(bytes, random, seeds);
  }
  bytes = Buffer.from(bytes.subarray(0, target.inputBytesMax ?? INPUT_BYTES_MAX));
  return target.repair !== undefined && random.oneIn(2) ? target.repair(bytes) : bytes;
}
