/**
 * Tells at which bit a deflate block begins. zlib stops at block borders but does not say how many
 * bits of its last input byte it has used; so each of the eight candidates is decoded here, symbol
 * by symbol, and compared with the output that zlib gave for the same bytes. The right one always
 * matches, so a single match is it. A wrong one is refuted by its header or first few symbols,
 * which makes this far cheaper than eight inflaters. Source: RFC 1951; the decoder follows
 * Mark Adler's puff.
 *
 * Stored blocks begin at whole bytes, so several bits may mean the same; if these disagree about
 * being the last block there is no answer, and the border is not used (three of four borders
 * between stored blocks of random data).
 */

/** What zlib did after a block border, all inside one gzip member. */
export interface ProbeEvidence {
  /** The last byte consumed before the border, then those consumed after it. */
  readonly bytes: Uint8Array;
  /** Output before the border: what distances may reach. */
  readonly window: Uint8Array;
  /** Output after the border. */
  readonly output: Uint8Array;
  /** Whether the deflate stream ends with this output and these bytes. */
  readonly endsStream: boolean;
}

const BITS_PER_BYTE = 8;
const CODE_LENGTH_MAX = 15;
const END_OF_BLOCK = 256;

const LENGTH_BASE = [
  3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
  163, 195, 227, 258,
] as const;
const LENGTH_EXTRA = [
  0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
] as const;
const DISTANCE_BASE = [
  1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049,
  3073, 4097, 6145, 8193, 12289, 16385, 24577,
] as const;
const DISTANCE_EXTRA = [
  0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13,
] as const;
const CODE_LENGTH_ORDER = [
  16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
] as const;

/**
 * Thrown inside this file only: the candidate is not what zlib decoded. One object for all, since
 * most candidates end this way and a stack trace costs more than the probe.
 */
const REFUTED = new Error("refuted");

/** A canonical Huffman code. */
interface Code {
  readonly counts: Uint16Array;
  readonly symbols: Uint16Array;
}

interface Candidate {
  readonly startBits: number;
  /**
   * Two candidates with equal identity decode alike: stored blocks whose lengths lie at the same
   * byte, the bits before being padding.
   */
  readonly identity: string;
}

/**
 * Bit 0…7 of the first real byte at which the block begins: 0 means at `bytes[1]`, others at that
 * bit of `bytes[0]`. Undefined if the evidence does not single one out.
 */
export function probeStartBits(evidence: ProbeEvidence): number | undefined {
  let found: Candidate | undefined;
  for (let startBits = 0; startBits < BITS_PER_BYTE; startBits += 1) {
    const candidate = tryCandidate(evidence, startBits);
    if (candidate === undefined) continue;
    if (found !== undefined && found.identity !== candidate.identity) return undefined;
    found ??= candidate;
  }
  return found?.startBits;
}

function tryCandidate(evidence: ProbeEvidence, startBits: number): Candidate | undefined {
  const probe = new Probe(evidence, startBits === 0 ? BITS_PER_BYTE : startBits);
  try {
    return { startBits, identity: probe.run() ?? `bit ${startBits}` };
  } catch (error) {
    if (error === REFUTED) return undefined;
    throw error;
  }
}

class Probe {
  readonly #evidence: ProbeEvidence;
  /** In bits from the start of `bytes`. */
  #position: number;
  /** Output bytes compared. */
  #compared = 0;

  constructor(evidence: ProbeEvidence, position: number) {
    this.#evidence = evidence;
    this.#position = position;
  }

  /** Returns the identity of a leading stored block. */
  run(): string | undefined {
    let identity: string | undefined;
    for (let index = 0; ; index += 1) {
      const isFinal = this.#bits(1) === 1;
      const type = this.#bits(2);
      if (type === 0) {
        const lengthAt = this.#stored();
        if (index === 0) identity = `stored ${lengthAt} ${isFinal ? "final" : ""}`;
      } else if (type === 1) this.#symbols(FIXED_LENGTHS, FIXED_DISTANCES);
      else if (type === 2) this.#dynamic();
      else throw REFUTED;
      if (this.#isExhausted()) return identity;
      if (isFinal) {
        this.#checkStreamEnd();
        return identity;
      }
    }
  }

  /** All output agrees; where the stream ends with it, the final block must still be seen. */
  #isExhausted(): boolean {
    return !this.#evidence.endsStream && this.#compared >= this.#evidence.output.length;
  }

  #checkStreamEnd(): void {
    const { endsStream, output, bytes } = this.#evidence;
    const usedBytes = Math.ceil(this.#position / BITS_PER_BYTE);
    if (!endsStream || this.#compared !== output.length || usedBytes !== bytes.length) {
      throw REFUTED;
    }
  }

  #bits(count: number): number {
    let value = 0;
    for (let bit = 0; bit < count; bit += 1) value |= this.#bit() << bit;
    return value;
  }

  #bit(): number {
    const byte = this.#evidence.bytes[this.#position >>> 3];
    // zlib needed no more input for the same output, so neither does the right candidate.
    if (byte === undefined) throw REFUTED;
    const bit = (byte >>> (this.#position & 7)) & 1;
    this.#position += 1;
    return bit;
  }

  /** Returns the byte at which the block's lengths lie. */
  #stored(): number {
    this.#position = Math.ceil(this.#position / BITS_PER_BYTE) * BITS_PER_BYTE;
    const lengthAt = this.#position / BITS_PER_BYTE;
    const length = this.#bits(16);
    if ((this.#bits(16) ^ 0xffff) !== length) throw REFUTED;
    for (let index = 0; index < length && !this.#isExhausted(); index += 1) {
      this.#expect(this.#bits(8));
    }
    return lengthAt;
  }

  #expect(byte: number): void {
    if (this.#evidence.output[this.#compared] !== byte) throw REFUTED;
    this.#compared += 1;
  }

  #copy(length: number, distance: number): void {
    const { output, window } = this.#evidence;
    if (distance > this.#compared + window.length) throw REFUTED;
    for (let index = 0; index < length && !this.#isExhausted(); index += 1) {
      const source = this.#compared - distance;
      this.#expect((source >= 0 ? output[source] : window[window.length + source]) ?? 0);
    }
  }

  #symbols(lengths: Code, distances: Code): void {
    while (!this.#isExhausted()) {
      const symbol = this.#symbol(lengths);
      if (symbol < END_OF_BLOCK) {
        this.#expect(symbol);
        continue;
      }
      if (symbol === END_OF_BLOCK) return;
      const length = this.#extended(LENGTH_BASE, LENGTH_EXTRA, symbol - END_OF_BLOCK - 1);
      const distance = this.#extended(DISTANCE_BASE, DISTANCE_EXTRA, this.#symbol(distances));
      this.#copy(length, distance);
    }
  }

  #extended(bases: readonly number[], extras: readonly number[], index: number): number {
    const base = bases[index];
    const extra = extras[index];
    if (base === undefined || extra === undefined) throw REFUTED;
    return base + this.#bits(extra);
  }

  #symbol(code: Code): number {
    let value = 0;
    let first = 0;
    let index = 0;
    for (let length = 1; length <= CODE_LENGTH_MAX; length += 1) {
      value |= this.#bit();
      const count = code.counts[length] ?? 0;
      if (value - count < first) return code.symbols[index + (value - first)] ?? 0;
      index += count;
      first = (first + count) << 1;
      value <<= 1;
    }
    throw REFUTED;
  }

  #dynamic(): void {
    const lengthCount = this.#bits(5) + 257;
    const distanceCount = this.#bits(5) + 1;
    const codeLengthCount = this.#bits(4) + 4;
    if (lengthCount > 286 || distanceCount > 30) throw REFUTED;
    const codeLengths = new Uint8Array(19);
    for (let index = 0; index < codeLengthCount; index += 1) {
      codeLengths[CODE_LENGTH_ORDER[index] ?? 0] = this.#bits(3);
    }
    const lengths = this.#codeLengths(buildCode(codeLengths, false), lengthCount + distanceCount);
    if (lengths[END_OF_BLOCK] === 0) throw REFUTED;
    this.#symbols(
      buildCode(lengths.subarray(0, lengthCount), true),
      buildCode(lengths.subarray(lengthCount), true),
    );
  }

  #codeLengths(code: Code, count: number): Uint8Array {
    const lengths = new Uint8Array(count);
    let index = 0;
    while (index < count) {
      const symbol = this.#symbol(code);
      if (symbol < 16) {
        lengths[index] = symbol;
        index += 1;
        continue;
      }
      if (symbol === 16 && index === 0) throw REFUTED;
      const value = symbol === 16 ? (lengths[index - 1] ?? 0) : 0;
      const repeat =
        symbol === 16 ? 3 + this.#bits(2) : symbol === 17 ? 3 + this.#bits(3) : 11 + this.#bits(7);
      if (index + repeat > count) throw REFUTED;
      lengths.fill(value, index, index + repeat);
      index += repeat;
    }
    return lengths;
  }
}

/** As zlib: a code must be complete, but one code of one bit (or none, of distances) may stand. */
function buildCode(lengths: Uint8Array, mayBeIncomplete: boolean): Code {
  const counts = new Uint16Array(CODE_LENGTH_MAX + 1);
  for (const length of lengths) counts[length] = (counts[length] ?? 0) + 1;
  const used = lengths.length - (counts[0] ?? 0);
  counts[0] = 0;
  let left = 1;
  let longest = 0;
  for (let length = 1; length <= CODE_LENGTH_MAX; length += 1) {
    left = left * 2 - (counts[length] ?? 0);
    if (left < 0) throw REFUTED;
    if ((counts[length] ?? 0) > 0) longest = length;
  }
  if (used > 0 && left > 0 && !(mayBeIncomplete && longest === 1)) throw REFUTED;
  const offsets = new Uint16Array(CODE_LENGTH_MAX + 2);
  for (let length = 1; length <= CODE_LENGTH_MAX; length += 1) {
    offsets[length + 1] = (offsets[length] ?? 0) + (counts[length] ?? 0);
  }
  const symbols = new Uint16Array(used);
  for (let symbol = 0; symbol < lengths.length; symbol += 1) {
    const length = lengths[symbol] ?? 0;
    if (length === 0) continue;
    const offset = offsets[length] ?? 0;
    symbols[offset] = symbol;
    offsets[length] = offset + 1;
  }
  return { counts, symbols };
}

const FIXED_LENGTHS = buildCode(
  Uint8Array.from({ length: 288 }, (_, symbol) =>
    symbol < 144 ? 8 : symbol < 256 ? 9 : symbol < 280 ? 7 : 8,
  ),
  false,
);
/** All 32 codes exist, 30 and 31 mean nothing. */
const FIXED_DISTANCES = buildCode(new Uint8Array(32).fill(5), false);
