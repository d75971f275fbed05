/** What peers and strangers send to the exchange: frames, requests, targets, certificates. */
import { parseDigest } from "../../../src/oci/index.ts";
import {
  decodeTick,
  encodeFrame,
  encodeTick,
  FRAME,
  FrameDecoder,
  indexPayload,
} from "../../../src/peer/exchange/frames.ts";
import { parseOrder } from "../../../src/peer/exchange/peer-streams.ts";
import {
  decodeError,
  encodeBlocksRequest,
  mapResource,
  orderResource,
  parseBlocksRequest,
  parseTarget,
  targetOf,
} from "../../../src/peer/exchange/protocol.ts";
import { parseRange, parseRegistryTarget } from "../../../src/peer/exchange/registry-face.ts";
import { peerNameOf } from "../../../src/peer/transport/identity-names.ts";
import { piecesOf, textOf, tolerate } from "../target.ts";
import type { FuzzTarget } from "../target.ts";

const DIGEST = parseDigest(`sha256:${"5a".repeat(32)}`);
const HEX = "3c".repeat(32);

const FRAMES: FuzzTarget = {
  name: "exchange-frames",
  seeds: () => [
    Buffer.concat([
      encodeFrame(FRAME.block, indexPayload(3, 12)),
      encodeFrame(FRAME.data, Buffer.from("hello ")),
      encodeTick(["node-1", "node-2"]),
      encodeFrame(FRAME.data, Buffer.from("world!")),
      encodeFrame(FRAME.end, indexPayload(3)),
      encodeFrame(FRAME.notHere, indexPayload(4)),
      encodeFrame(FRAME.done, new Uint8Array()),
    ]),
    encodeFrame(FRAME.order, Buffer.from(`{"at":3,"blocks":[["${HEX}",[1,2,3]]]}`)),
    encodeFrame(FRAME.failed, Buffer.concat([indexPayload(1), Buffer.from("{}")])),
  ],
  run: (bytes) => {
    const decoder = new FrameDecoder({
      onFrame: (type, payload) => {
        if (type === FRAME.tick) tolerate(() => decodeTick(payload));
        if (type === FRAME.order) tolerate(() => parseOrder(payload));
        if (type === FRAME.failed) decodeError(payload.subarray(4), "peer");
      },
      onData: () => undefined,
    });
    for (const piece of piecesOf(bytes)) decoder.push(piece);
  },
};

const REQUEST: FuzzTarget = {
  name: "exchange-request",
  seeds: () => [
    encodeBlocksRequest({
      image: DIGEST,
      epoch: { counter: 7, manager: "node-1" },
      path: ["node-2", "node-3"],
      layer: HEX,
      blob: DIGEST,
      priority: 2,
      blocks: [
        { index: 0, start: 0, end: 1024 },
        { index: 9, start: 4096, end: 8192 },
      ],
    }),
  ],
  run: (bytes) => {
    parseBlocksRequest(encodeBlocksRequest(parseBlocksRequest(bytes)));
  },
};

const VERSIONS = { lowest: 1, highest: 2 };

const TARGET: FuzzTarget = {
  name: "exchange-target",
  seeds: () =>
    [
      "/faasnet/1/blocks",
      "/faasnet/1/probe",
      targetOf(1, mapResource(HEX, DIGEST, ["node-1", "nöde 2"])),
      targetOf(2, orderResource(DIGEST, 17)),
      `/v2/library/app/manifests/latest?ns=docker.io`,
      `/v2/a/b/blobs/${DIGEST}`,
      "bytes=10-200",
    ].map((text) => Buffer.from(text)),
  run: (bytes) => {
    const text = textOf(bytes);
    tolerate(() => parseTarget("GET", text, VERSIONS));
    tolerate(() => parseTarget("POST", text, VERSIONS));
    tolerate(() => parseRegistryTarget(text));
    tolerate(() => parseRange(text, 1000));
  },
};

/** A member's and a client's, in DER: made once, for new keys would make other seeds. */
const CERTIFICATES: readonly string[] = [
  "MIIBpjCCAVigAwIBAgIPBQUFBQUFBQUFBQUFBQUFMAUGAytlcDArMSkwJwYDVQQDDCBmYWFzbmV0IGNs" +
    "dXN0ZXIgMTZmMDMxOTkzZGE1OWZiNjAgFw03MDAxMDEwMDAwMDBaGA85OTk5MTIzMTIzNTk1OVowETEP" +
    "MA0GA1UEAwwGbm9kZS0xMCowBQYDK2VwAyEAiWcGSLtTV6AbRzJhIc+3mxkZRDW7YliF0/1NCKfzY0qj" +
    "gaowgacwDgYDVR0PAQH/BAQDAgeAMB0GA1UdJQQWMBQGCCsGAQUFBwMBBggrBgEFBQcDAjA2BgNVHREE" +
    "LzAthhVmYWFzbmV0Om1lbWJlcjpub2RlLTGHBH8AAAGCDm5vZGUtMS5leGFtcGxlMB0GA1UdDgQWBBR/" +
    "k2uJ8OtBwsVmhjubmB6BrcwCEDAfBgNVHSMEGDAWgBQW8DGZPaWftvzkYES++noMLxZSHDAFBgMrZXAD" +
    "QQAsdoRyuOUyRBlJaco2hL1Aie3oS9oMwWUMZkJ2ps9HxngV5JtvXLc7llx94IyFzLJfvM8kHMcudhTs" +
    "Hm8iSbsO",
  "MIIBgjCCATSgAwIBAgIPBQUFBQUFBQUFBQUFBQUFMAUGAytlcDArMSkwJwYDVQQDDCBmYWFzbmV0IGNs" +
    "dXN0ZXIgMTZmMDMxOTkzZGE1OWZiNjAgFw03MDAxMDEwMDAwMDBaGA85OTk5MTIzMTIzNTk1OVowDzEN" +
    "MAsGA1UEAwwEY3VybDAqMAUGAytlcAMhAClb+RVTkLBYU4UEacMyApfsmWjR9wj4EdUa1U44ZkZeo4GI" +
    "MIGFMA4GA1UdDwEB/wQEAwIHgDATBgNVHSUEDDAKBggrBgEFBQcDAjAeBgNVHREEFzAVhhNmYWFzbmV0" +
    "OmNsaWVudDpjdXJsMB0GA1UdDgQWBBRkaIDvaocwx29uCOT63vslzjuT6TAfBgNVHSMEGDAWgBQW8DGZ" +
    "PaWftvzkYES++noMLxZSHDAFBgMrZXADQQDpqN504EcBBWCCIQZLqoHfFeE7yhxVxsCOeu5uIsUl6MYR" +
    "31Quwe5b9Zl0nMR76rhNfZjbIv2Lu3wptActFFUO",
];

const CERTIFICATE: FuzzTarget = {
  name: "exchange-certificate",
  seeds: () => CERTIFICATES.map((text) => Buffer.from(text, "base64")),
  run: (bytes) => {
    peerNameOf(bytes);
  },
};

export const EXCHANGE_TARGETS: readonly FuzzTarget[] = [FRAMES, REQUEST, TARGET, CERTIFICATE];
