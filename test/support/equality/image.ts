/**
 * Images as plain descriptions, and the arbitrary that makes them. Paths come from a small pool of
 * names, so that layers meet: whiteouts hit, folders are replaced, links are broken. All names,
 * targets and xattrs are byte strings (one char is one byte).
 */
import fc from "fast-check";

export interface Attributes {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly xattrs: readonly (readonly [name: string, value: string])[];
}

export type Entry = { readonly path: readonly string[] } & (
  | {
      readonly kind: "file";
      readonly attributes: Attributes;
      readonly bytes: number;
      readonly content: number;
      readonly isSparse: boolean;
    }
  | { readonly kind: "dir" | "fifo"; readonly attributes: Attributes }
  | { readonly kind: "symlink"; readonly attributes: Attributes; readonly target: string }
  | {
      readonly kind: "char" | "block";
      readonly attributes: Attributes;
      readonly major: number;
      readonly minor: number;
    }
  /** To one of the layer's files so far; the number chooses among them. */
  | { readonly kind: "link"; readonly attributes: Attributes; readonly choice: number }
  | { readonly kind: "whiteout" | "opaque" | "root" }
  /** A folder of so many empty files. */
  | { readonly kind: "crowd"; readonly files: number }
);

export interface Layer {
  readonly entries: readonly Entry[];
  readonly codec: "none" | "gzip" | "zstd";
  /** Members of gzip or frames of zstd. */
  readonly pieces: number;
}

export interface Image {
  readonly layers: readonly Layer[];
  readonly isDocker: boolean;
}

const LAYERS_MAX = 5;
const ENTRIES_MAX = 14;

const POOL = ["a", "b", "c", "d"];
const ODD_NAMES = [
  "n".repeat(255),
  "m".repeat(251),
  "line\nbreak",
  "latin\xe9",
  "\xff\xfe",
  "\xc3\xbc\xf0\x9f\x90\xb3",
  ".wh-not",
  "..double",
  " blank ",
  "back\\slash\t'\"",
  "wh.",
];

const name = fc.oneof(
  { weight: 14, arbitrary: fc.constantFrom(...POOL) },
  { weight: 1, arbitrary: fc.constantFrom(...ODD_NAMES) },
);
const path = fc.array(name, { minLength: 1, maxLength: 4, size: "max" });

/** Seconds and nanoseconds; none in the years around now, which mean "when it was unpacked". */
const TIMES: readonly (readonly [number, number])[] = [
  [1_000_000_000, 0],
  [1_234_567_890, 123_456_789],
  [0, 0],
  [0, 1],
  [-2, 0],
  [-2, 500_000_000],
  [-2_000_000_000, 0],
  [2_147_483_648, 999_999_999],
  [4_294_967_306, 1],
  [8_000_000_000, 0],
];
const CAPABILITY = "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const XATTRS: readonly (readonly [string, string])[] = [
  ["user.a", "value"],
  ["user.a", "another value"],
  ["user.binary", "a=b\n\0\xff"],
  ["user.empty", ""],
  ["user.long", "x".repeat(1500)],
  ["user.caf\xc3\xa9", "utf-8 name"],
  ["trusted.mine", "t"],
  ["trusted.overlay.opaque", "y"],
  ["trusted.overlay.metacopy", ""],
  ["security.other", "s"],
  ["com.apple.quarantine", "q"],
];
/** Off while a later chmod of the same inode does not change its ACL: docs/equality.md, open. */
const ACL_CHANCE = 0;
const MODES = [0o644, 0o755, 0o600, 0, 0o4755, 0o2755, 0o1777, 0o6711, 0o7777];
const OWNERS = [0, 0, 7, 1000, 65_534, 2_097_151, 2_097_152, 4_000_000_000];

const attributes: fc.Arbitrary<Attributes> = fc
  .record({
    mode: fc.constantFrom(...MODES),
    uid: fc.constantFrom(...OWNERS),
    gid: fc.constantFrom(...OWNERS),
    time: fc.constantFrom(...TIMES),
    xattrs: fc.oneof(
      { weight: 5, arbitrary: fc.constant([]) },
      {
        weight: 1,
        arbitrary: fc.uniqueArray(fc.constantFrom(...XATTRS), {
          minLength: 1,
          maxLength: 4,
          selector: ([key]) => key,
        }),
      },
    ),
    hasAcl: fc.nat(99).map((value) => value < ACL_CHANCE),
  })
  .map(({ time: [mtimeSec, mtimeNsec], hasAcl, xattrs, ...rest }) => ({
    ...rest,
    mtimeSec,
    mtimeNsec,
    xattrs: hasAcl ? [...xattrs, accessAcl(rest.mode)] : xattrs,
  }));

/**
 * An ACL that agrees with the mode, as the kernel would store both (the mask is the group's bits).
 * Source: Linux posix_acl_xattr.h.
 */
function accessAcl(mode: number): readonly [string, string] {
  const undefinedId = 0xffff_ffff;
  const entries: readonly (readonly [tag: number, bits: number, id: number])[] = [
    [0x01, (mode >> 6) & 7, undefinedId],
    [0x02, 5, 1000],
    [0x04, 4, undefinedId],
    [0x10, (mode >> 3) & 7, undefinedId],
    [0x20, mode & 7, undefinedId],
  ];
  const bytes = Buffer.alloc(4 + 8 * entries.length);
  bytes.writeUInt32LE(2, 0);
  for (const [index, [tag, bits, id]] of entries.entries()) {
    bytes.writeUInt16LE(tag, 4 + 8 * index);
    bytes.writeUInt16LE(bits, 6 + 8 * index);
    bytes.writeUInt32LE(id, 8 + 8 * index);
  }
  return ["system.posix_acl_access", bytes.toString("latin1")];
}

const fileAttributes: fc.Arbitrary<Attributes> = fc
  .tuple(attributes, fc.nat(9))
  .map(([value, chance]) =>
    chance === 1
      ? { ...value, xattrs: [...value.xattrs, ["security.capability", CAPABILITY]] }
      : value,
  );

const file = fc.record({
  kind: fc.constant("file" as const),
  path,
  attributes: fileAttributes,
  bytes: fc.oneof(
    { weight: 60, arbitrary: fc.constantFrom(0, 1, 511, 512, 513, 4095, 4097, 9000, 70_000) },
    { weight: 1, arbitrary: fc.constantFrom(1_048_576, 2_600_001) },
  ),
  content: fc.nat(3),
  isSparse: fc.nat(7).map((value) => value === 1),
});
const dir = fc.record({ kind: fc.constant("dir" as const), path, attributes });
const fifo = fc.record({ kind: fc.constant("fifo" as const), path, attributes });
const symlink = fc.record({
  kind: fc.constant("symlink" as const),
  path,
  attributes,
  target: fc.oneof(
    { weight: 4, arbitrary: path.map((parts) => parts.join("/")) },
    { weight: 1, arbitrary: fc.constantFrom("/a", "../b", "t".repeat(3000), "\xff", "no\nwhere") },
  ),
});
const device = fc.record({
  kind: fc.constantFrom("char" as const, "block" as const),
  path,
  attributes,
  major: fc.constantFrom(0, 1, 8, 0xfff),
  minor: fc.constantFrom(0, 3, 300, 0xf_ffff),
});
const link = fc.record({
  kind: fc.constant("link" as const),
  path,
  attributes: fileAttributes,
  choice: fc.nat(50),
});
const mark = fc.record({
  kind: fc.constantFrom("whiteout" as const, "whiteout" as const, "opaque" as const),
  path,
});
const crowd = fc.record({
  kind: fc.constant("crowd" as const),
  path,
  files: fc.oneof(
    { weight: 9, arbitrary: fc.constantFrom(100, 400) },
    { weight: 1, arbitrary: fc.constant(20_000) },
  ),
});

const entry: fc.Arbitrary<Entry> = fc.oneof(
  { weight: 90, arbitrary: file },
  { weight: 60, arbitrary: dir },
  { weight: 25, arbitrary: symlink },
  { weight: 40, arbitrary: link },
  { weight: 10, arbitrary: fifo },
  { weight: 15, arbitrary: device },
  { weight: 60, arbitrary: mark },
  { weight: 10, arbitrary: fc.constant({ kind: "root" as const, path: [] }) },
  { weight: 1, arbitrary: crowd },
);

const layer: fc.Arbitrary<Layer> = fc.record({
  entries: fc.array(entry, { maxLength: ENTRIES_MAX, size: "max" }),
  codec: fc.constantFrom("gzip" as const, "zstd" as const, "none" as const),
  pieces: fc.constantFrom(1, 1, 2, 5),
});

export const imageArbitrary: fc.Arbitrary<Image> = fc.record({
  layers: fc.array(layer, { minLength: 1, maxLength: LAYERS_MAX, size: "max" }),
  isDocker: fc.boolean(),
});
