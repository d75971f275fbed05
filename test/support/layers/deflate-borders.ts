/** Where deflate blocks begin, to the bit, as pako tells: the oracle for our own bit positions. */
import { createRequire } from "node:module";

/** The part of pako's zlib port that is used; the package has no types for it. */
interface PakoStream {
  input: Uint8Array;
  next_in: number;
  avail_in: number;
  output: Uint8Array;
  next_out: number;
  avail_out: number;
  data_type: number;
}
interface PakoInflate {
  inflateInit2(stream: PakoStream, windowBits: number): number;
  inflate(stream: PakoStream, flush: number): number;
}
type PakoStreamClass = new () => PakoStream;

const require = createRequire(import.meta.url);
const Z_BLOCK = 5;
const Z_STREAM_END = 1;
const BORDER_FLAG = 128;
const RAW_WINDOW_BITS = -15;

export interface DeflateBorder {
  /** Bits before the border. */
  readonly bit: number;
  /** Output bytes before the border. */
  readonly output: number;
}

/** All borders inside a raw deflate stream, neither its start nor its end. */
export function deflateBorders(deflated: Uint8Array, outputBytes: number): DeflateBorder[] {
  const pako = require("pako/lib/zlib/inflate.js") as PakoInflate;
  const Stream = require("pako/lib/zlib/zstream.js") as PakoStreamClass;
  const stream = new Stream();
  pako.inflateInit2(stream, RAW_WINDOW_BITS);
  stream.input = deflated;
  stream.avail_in = deflated.length;
  stream.output = new Uint8Array(outputBytes + 16);
  stream.avail_out = stream.output.length;
  const borders: DeflateBorder[] = [];
  for (;;) {
    const code = pako.inflate(stream, Z_BLOCK);
    if (code === Z_STREAM_END) break;
    if (code !== 0) throw new Error(`pako: ${code}`);
    if ((stream.data_type & BORDER_FLAG) !== 0) {
      const bit = stream.next_in * 8 - (stream.data_type & 7);
      borders.push({ bit, output: stream.next_out });
    }
  }
  return borders.filter((border) => border.bit > 0 && border.output < outputBytes);
}
