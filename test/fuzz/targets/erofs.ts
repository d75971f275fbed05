/** EROFS metadata as a keeper and a merge read it. */
import {
  defaultDirectory,
  ErofsInodeInput,
  ErofsReader,
  FILE_TYPE,
  symlinkData,
  writeErofs,
} from "../../../src/erofs/index.ts";
import { fixChecksum } from "../../support/erofs/checksum.ts";
import { readAll } from "../../support/erofs/read-all.ts";
import { tolerate } from "../target.ts";
import type { FuzzTarget } from "../target.ts";

const DEVICES = [{ bytes: 64 * 512 }, { bytes: 8 * 512 }];

function node(mode: number, data?: ErofsInodeInput["data"], xattrs: [string, string][] = []) {
  const attributes = {
    ...defaultDirectory(),
    mode,
    uid: 70_000,
    mtimeSec: 1_700_000_000,
    xattrs: new Map(xattrs.map(([name, value]) => [name, Buffer.from(value)])),
  };
  return new ErofsInodeInput(attributes, data === undefined ? {} : { data });
}

function richTree(): ErofsInodeInput {
  const root = node(FILE_TYPE.directory | 0o755, undefined, [["user.root", "r"]]);
  const file = node(
    FILE_TYPE.regular | 0o644,
    {
      kind: "extents",
      size: 5000,
      extents: [
        { fileOffset: 0, length: 1024, device: 1, deviceOffset: 512 },
        { fileOffset: 4096, length: 904, device: 2, deviceOffset: 0 },
      ],
    },
    [
      ["security.capability", "\u0001\0\0\u0002"],
      ["user.shared", "shared value"],
      ["trusted.overlay.opaque", "y"],
    ],
  );
  const folder = node(FILE_TYPE.directory | 0o700, undefined, [["user.shared", "shared value"]]);
  for (let index = 0; index < 60; index += 1) {
    folder.entries?.set(`entry-${index}`, index % 7 === 0 ? file : node(FILE_TYPE.regular | 0o600));
  }
  root.entries?.set("file", file);
  root.entries?.set("again", file);
  root.entries?.set("folder", folder);
  root.entries?.set("link", node(FILE_TYPE.symlink | 0o777, symlinkData("folder/entry-1")));
  root.entries?.set(
    "inline",
    node(FILE_TYPE.regular, { kind: "inline", bytes: Buffer.alloc(700, 1) }),
  );
  root.entries?.set("fifo", node(FILE_TYPE.fifo | 0o600));
  return root;
}

export function erofsSamples(): readonly Buffer[] {
  const empty = new ErofsInodeInput(defaultDirectory());
  return [writeErofs(empty, { devices: [] }), writeErofs(richTree(), { devices: DEVICES })];
}

const EROFS_READER: FuzzTarget = {
  name: "erofs-reader",
  seeds: erofsSamples,
  repair: fixChecksum,
  run: (bytes) => {
    readAll(ErofsReader.open(bytes), tolerate);
  },
};

export const EROFS_TARGETS: readonly FuzzTarget[] = [EROFS_READER];
