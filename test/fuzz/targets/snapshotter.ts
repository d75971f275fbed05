/** The snapshotter's journal on disk and the filters that containerd's clients send. */
import { crc32 } from "node:zlib";
import { parseFilters, snapshotFields } from "../../../src/snapshotter/filters.ts";
import {
  encodeFrame,
  FRAME_HEADER_BYTES,
  readFrames,
} from "../../../src/snapshotter/metastore/frames.ts";
import {
  encodeOperations,
  parseOperations,
  type Operation,
} from "../../../src/snapshotter/metastore/records.ts";
import { State } from "../../../src/snapshotter/metastore/state.ts";
import { parseChainId } from "../../../src/oci/index.ts";
import type { SnapshotRecord } from "../../../src/snapshotter/snapshot-info.ts";
import { textOf } from "../target.ts";
import type { FuzzTarget } from "../target.ts";

const RECORD: SnapshotRecord = {
  id: 7,
  name: "default/1/sha256:abc",
  parent: "default/0/base",
  kind: "committed",
  createdNs: 1_700_000_000_123_456_789n,
  updatedNs: 1_700_000_001_123_456_789n,
  labels: new Map([
    ["containerd.io/snapshot.ref", "sha256:abc"],
    ["__proto__", "text"],
  ]),
  chainId: parseChainId(`sha256:${"0b".repeat(32)}`),
  usage: { bytes: 4096, inodes: 3 },
};

function journalSample(): Buffer {
  const groups: Operation[][] = [
    [{ kind: "begin", nextId: 1 }],
    [{ kind: "owner", uuid: "5f0c-uuid" }],
    [{ kind: "put", record: RECORD }],
    [
      {
        kind: "put",
        record: {
          ...RECORD,
          id: 8,
          name: "b",
          parent: RECORD.name,
          kind: "active",
          usage: undefined,
        },
      },
      { kind: "delete", name: RECORD.name },
    ],
  ];
  return Buffer.concat(groups.map((group, index) => encodeFrame(index, encodeOperations(group))));
}

const MAGIC = Buffer.from([0x46, 0x4a, 0x01, 0xff]);

/** Every frame reaches to the next magic number and has the checksum of what it holds. */
function repairJournal(bytes: Buffer): Buffer {
  let at = bytes.indexOf(MAGIC);
  for (let sequence = 0; at >= 0; sequence += 1) {
    const next = bytes.indexOf(MAGIC, at + 1);
    const frame = bytes.subarray(at, next < 0 ? bytes.length : next);
    if (frame.length >= FRAME_HEADER_BYTES) {
      frame.writeBigUInt64LE(BigInt(sequence), 4);
      frame.writeUInt32LE(frame.length - FRAME_HEADER_BYTES, 12);
      const sum = crc32(frame.subarray(FRAME_HEADER_BYTES), crc32(frame.subarray(0, 16)));
      frame.writeUInt32LE(sum, 16);
    }
    at = next;
  }
  return bytes;
}

const JOURNAL: FuzzTarget = {
  name: "journal",
  seeds: () => [journalSample()],
  repair: repairJournal,
  run: (bytes) => {
    const state = new State();
    for (const payload of readFrames(Buffer.from(bytes)).payloads) {
      for (const operation of parseOperations(payload)) state.apply(operation);
    }
    const records = [...state.records()];
    const written = encodeOperations(records.map((record) => ({ kind: "put", record })));
    if (parseOperations(written).length !== state.size) throw new Error("lost records");
  },
};

/** With a label as long as containerd lets one be: a search that backtracks does not end in it. */
const SEARCHED: SnapshotRecord = {
  ...RECORD,
  labels: new Map([...RECORD.labels, ["long", "a".repeat(4096)]]),
};

const FILTERS: FuzzTarget = {
  name: "filters",
  inputBytesMax: 4096,
  seeds: () =>
    [
      'name=="default/1/sha256:abc",kind!=committed',
      'labels."containerd.io/snapshot.ref"~=/^sha256:[a-f]+$/',
      'labels."a\\x41\\u00e9\\101"=="\\"quoted\\"",parent',
      "kind~=|a.(b)*c?d{1,3}|",
      "labels.long~=/(a+)+b/,labels.long~=|(a\\|a)*?(a{0,9})$|",
    ].map((text) => Buffer.from(text)),
  run: (bytes) => {
    const filter = parseFilters(textOf(bytes).split("\n"));
    filter(snapshotFields(SEARCHED));
  },
};

export const SNAPSHOTTER_TARGETS: readonly FuzzTarget[] = [JOURNAL, FILTERS];
