/** Frames and messages between the processes of the daemon. */
import {
  decodeRequest,
  decodeResponse,
  encodeFrame,
  encodeRequest,
  encodeResponse,
  FrameReader,
} from "../../../src/control/codec.ts";
import {
  parseFetchAnswer,
  parseForce,
  parseLayer,
  parseRanges,
  parseServeLayer,
  parseServeTree,
  parseTree,
} from "../../../src/keeper/messages.ts";
import {
  parseFetch,
  parseHello,
  parseRemaining,
  parseStats,
  parseTouched,
} from "../../../src/rootfs/messages.ts";
import { piecesOf, tolerate } from "../target.ts";
import type { FuzzTarget } from "../target.ts";

const LAYER = "3c".repeat(32);
const RANGES = [
  { start: 0, end: 512 },
  { start: 1024, end: 4096 },
];

interface Message {
  readonly method: string;
  readonly side: "request" | "response";
  readonly sample: object;
  readonly parse: (value: unknown) => unknown;
}

const MESSAGES: readonly Message[] = [
  {
    method: "Keeper.ServeLayer",
    side: "request",
    sample: {
      layer: LAYER,
      mountpoint: "/run/faasnet/l/1",
      size: 8192,
      tarBytes: 8000,
      decodedPath: "/var/lib/faasnet/cache/x",
      present: RANGES,
      readWaitMs: 1000,
    },
    parse: parseServeLayer,
  },
  {
    method: "Keeper.ServeTree",
    side: "request",
    sample: {
      tree: LAYER,
      mountpoint: "/run/faasnet/t/1",
      metadataPath: "/var/lib/faasnet/chains/x.erofs",
      layers: [LAYER, LAYER],
      context: "",
    },
    parse: parseServeTree,
  },
  { method: "Keeper.StopLayer", side: "request", sample: { layer: LAYER }, parse: parseLayer },
  { method: "Keeper.StopTree", side: "request", sample: { tree: LAYER }, parse: parseTree },
  {
    method: "Keeper.Present",
    side: "request",
    sample: { layer: LAYER, ranges: RANGES },
    parse: parseRanges,
  },
  { method: "Keeper.Shutdown", side: "request", sample: { force: true }, parse: parseForce },
  {
    method: "Keeper.Hello",
    side: "response",
    sample: {
      version: "1",
      pid: 12,
      instance: "i",
      layers: [{ layer: LAYER, mountpoint: "/l" }],
      trees: [{ tree: LAYER, mountpoint: "/t" }],
    },
    parse: parseHello,
  },
  {
    method: "Keeper.Stats",
    side: "response",
    sample: { reads: 5, readsPresent: 3, readsMissed: 2, bytes: 4096, waiting: 1, threads: 4 },
    parse: parseStats,
  },
  { method: "Keeper.Shutdown", side: "response", sample: { remaining: 2 }, parse: parseRemaining },
  {
    method: "Fetcher.Fetch",
    side: "request",
    sample: { layer: LAYER, start: 0, end: 4096 },
    parse: parseFetch,
  },
  {
    method: "Fetcher.Fetch",
    side: "response",
    sample: { present: RANGES, data: Buffer.alloc(16, 1) },
    parse: (value) => parseFetchAnswer(value, { start: 0, end: 16 }),
  },
  {
    method: "Fetcher.Touched",
    side: "request",
    sample: { layer: LAYER, ranges: RANGES },
    parse: parseTouched,
  },
];

const CONTROL_MESSAGES: FuzzTarget = {
  name: "control-messages",
  seeds: () =>
    MESSAGES.map(({ method, side, sample }, index) => {
      const encode = side === "request" ? encodeRequest : encodeResponse;
      return Buffer.concat([Buffer.of(index), encode(method, sample)]);
    }),
  run: (bytes) => {
    const message = MESSAGES[(bytes[0] ?? 0) % MESSAGES.length];
    if (message === undefined) return;
    const decode = message.side === "request" ? decodeRequest : decodeResponse;
    message.parse(decode(message.method, bytes.subarray(1)));
  },
};

function stream(): Buffer {
  const [first] = MESSAGES;
  const payload = first === undefined ? Buffer.alloc(0) : encodeRequest(first.method, first.sample);
  return Buffer.concat([
    encodeFrame({ id: 1, kind: "REQUEST", method: "Keeper.ServeLayer", payload }),
    encodeFrame({ id: 1, kind: "ITEM", payload }),
    encodeFrame({ id: 2, kind: "ERROR", code: "not-found", message: "no such layer" }),
    encodeFrame({ id: 3, kind: "CANCEL" }),
    encodeFrame({ id: 1, kind: "RESULT" }),
  ]);
}

const CONTROL_FRAMES: FuzzTarget = {
  name: "control-frames",
  seeds: () => [stream(), encodeFrame({ id: 9, kind: "REQUEST", method: "Keeper.Hello" })],
  run: (bytes) => {
    const reader = new FrameReader();
    for (const piece of piecesOf(bytes)) {
      for (const { kind, method, payload } of reader.push(piece)) {
        if (kind === "REQUEST") tolerate(() => decodeRequest(method, payload));
      }
    }
  },
};

export const CONTROL_TARGETS: readonly FuzzTarget[] = [CONTROL_MESSAGES, CONTROL_FRAMES];
