/**
 * Layers as plain descriptions, and the arbitraries that make them. Paths come from a small pool of
 * names, so that layers meet: whiteouts hit, folders are replaced, links are broken. All names,
 * targets and xattrs are byte strings (one char is one byte).
 */
import fc from "fast-check";
import { acl, GROUP, GROUP_OWNER, MASK, OTHER, OWNER, USER, type AclEntry } from "../acl.ts";

type Xattrs = readonly (readonly [name: string, value: string])[];

export interface Attributes {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly xattrs: Xattrs;
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

export const nameArbitrary = fc.oneof(
  { weight: 14, arbitrary: fc.constantFrom(...POOL) },
  { weight: 1, arbitrary: fc.constantFrom(...ODD_NAMES) },
);
const pathOf = (length: number): fc.Arbitrary<string[]> =>
  fc.array(nameArbitrary, { minLength: length, maxLength: length, size: "max" });
/** Short ones meet more often. */
const path = fc.oneof(
  { weight: 4, arbitrary: pathOf(1) },
  { weight: 6, arbitrary: pathOf(2) },
  { weight: 3, arbitrary: pathOf(3) },
  { weight: 2, arbitrary: pathOf(4) },
);

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
const MODES = [0o644, 0o755, 0o600, 0, 0o4755, 0o2755, 0o1777, 0o6711, 0o7777];
const OWNERS = [0, 0, 7, 1000, 65_534, 2_097_151, 2_097_152, 4_000_000_000];

function aclText(...entries: readonly AclEntry[]): string {
  return acl(...entries).toString("latin1");
}

const NAMED_ACL = aclText([OWNER, 6], [USER, 5, 1000], [GROUP_OWNER, 4], [MASK, 7], [OTHER, 0]);
const ACLS: readonly string[] = [
  NAMED_ACL,
  aclText(
    [OWNER, 7],
    [USER, 0, 0],
    [USER, 7, 4e9],
    [GROUP_OWNER, 0],
    [GROUP, 2, 7],
    [MASK, 1],
    [OTHER, 5],
  ),
  aclText([OWNER, 0], [GROUP_OWNER, 1], [MASK, 4], [OTHER, 3, 5]),
  // As much as a mode says, and nothing: both take away an ACL that was there.
  aclText([OWNER, 7], [GROUP_OWNER, 5], [OTHER, 1]),
  aclText(),
];
const ACCESS_ACLS = ACLS.map((value): Xattrs => [["system.posix_acl_access", value]]);
const DEFAULT_ACL: Xattrs[number] = ["system.posix_acl_default", NAMED_ACL];

export const attributesArbitrary: fc.Arbitrary<Attributes> = fc
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
    accessAcl: fc.oneof(
      { weight: 9, arbitrary: fc.constant([]) },
      { weight: 1, arbitrary: fc.constantFrom(...ACCESS_ACLS) },
    ),
  })
  .map(({ time: [mtimeSec, mtimeNsec], accessAcl, xattrs, ...rest }) => ({
    ...rest,
    mtimeSec,
    mtimeNsec,
    xattrs: [...xattrs, ...accessAcl],
  }));

const fileAttributes: fc.Arbitrary<Attributes> = fc
  .tuple(attributesArbitrary, fc.nat(9))
  .map(([value, chance]) =>
    chance === 1
      ? { ...value, xattrs: [...value.xattrs, ["security.capability", CAPABILITY]] }
      : value,
  );

export const fileArbitrary = fc.record({
  kind: fc.constant("file" as const),
  path,
  attributes: fileAttributes,
  bytes: fc.oneof(
    { weight: 60, arbitrary: fc.constantFrom(0, 1, 511, 512, 513, 4095, 4097, 9000, 70_000) },
    { weight: 1, arbitrary: fc.constantFrom(1_048_576, 2_600_001, 1_048_577, 9_500_000) },
  ),
  content: fc.nat(3),
  isSparse: fc.nat(7).map((value) => value === 1),
});
/** Their xattrs meet those of other layers more often than a file's. */
const dirXattrs = fc.oneof(
  { weight: 20, arbitrary: fc.constant<Xattrs>([]) },
  { weight: 9, arbitrary: fc.constantFrom<Xattrs[]>([["user.dir", "1"]], [["user.b", "2"]]) },
  { weight: 1, arbitrary: fc.constant<Xattrs>([DEFAULT_ACL]) },
);
const dir = fc.record({
  kind: fc.constant("dir" as const),
  path,
  attributes: fc
    .tuple(attributesArbitrary, dirXattrs)
    .map(([value, more]) => ({ ...value, xattrs: [...value.xattrs, ...more] })),
});
const fifo = fc.record({
  kind: fc.constant("fifo" as const),
  path,
  attributes: attributesArbitrary,
});
const symlink = fc.record({
  kind: fc.constant("symlink" as const),
  path,
  attributes: attributesArbitrary,
  target: fc.oneof(
    { weight: 2, arbitrary: path.map((parts) => parts.join("/")) },
    { weight: 2, arbitrary: nameArbitrary },
    {
      weight: 2,
      arbitrary: fc.tuple(nameArbitrary, nameArbitrary).map((parts) => `/${parts.join("/")}`),
    },
    { weight: 1, arbitrary: fc.constantFrom("/a", "../b", "t".repeat(3000), "\xff", "no\nwhere") },
  ),
});
const device = fc.record({
  kind: fc.constantFrom("char" as const, "block" as const),
  path,
  attributes: attributesArbitrary,
  major: fc.constantFrom(0, 1, 8, 0xfff),
  minor: fc.constantFrom(0, 3, 300, 0xf_ffff),
});
const link = fc.record({
  kind: fc.constant("link" as const),
  path,
  attributes: fileAttributes,
  choice: fc.nat(50),
});
const whiteout = fc.record({ kind: fc.constant("whiteout" as const), path });
const opaque = fc.record({
  kind: fc.constant("opaque" as const),
  path: fc.oneof({ weight: 15, arbitrary: path }, { weight: 1, arbitrary: fc.constant([]) }),
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
  { weight: 90, arbitrary: fileArbitrary },
  { weight: 60, arbitrary: dir },
  { weight: 25, arbitrary: symlink },
  { weight: 40, arbitrary: link },
  { weight: 10, arbitrary: fifo },
  { weight: 15, arbitrary: device },
  { weight: 40, arbitrary: whiteout },
  { weight: 20, arbitrary: opaque },
  { weight: 10, arbitrary: fc.constant({ kind: "root" as const, path: [] }) },
  { weight: 1, arbitrary: crowd },
);

/** As they come, or children before the folders that hold them. */
const entries = fc
  .tuple(fc.array(entry, { maxLength: ENTRIES_MAX, size: "max" }), fc.nat(2))
  .map(([all, order]) =>
    order === 1 ? all.toSorted((one, other) => other.path.length - one.path.length) : all,
  );

export const layerArbitrary: fc.Arbitrary<Layer> = fc.record({
  entries,
  codec: fc.constantFrom("gzip" as const, "zstd" as const, "none" as const),
  pieces: fc.constantFrom(1, 1, 2, 5),
});
