/** Trees for tests: small builders, and generated ones. */
import fc from "fast-check";
import {
  ErofsInodeInput,
  FILE_TYPE,
  NO_DATA,
  NO_XATTRS,
  symlinkData,
  type ErofsAttributes,
  type ErofsData,
  type ErofsExtent,
} from "../../../src/erofs/index.ts";

export const BLOCK = 512;

export function attributes(
  mode: number,
  options: Partial<Omit<ErofsAttributes, "mode">> = {},
): ErofsAttributes {
  return {
    mode,
    uid: 0,
    gid: 0,
    mtimeSec: 1_700_000_000,
    mtimeNsec: 0,
    rdevMajor: 0,
    rdevMinor: 0,
    xattrs: NO_XATTRS,
    ...options,
  };
}

type Options = Partial<Omit<ErofsAttributes, "mode">> & { readonly mode?: number };

export function directory(
  entries: Readonly<Record<string, ErofsInodeInput>> = {},
  options: Options = {},
): ErofsInodeInput {
  const mode = FILE_TYPE.directory | (options.mode ?? 0o755);
  const node = new ErofsInodeInput(attributes(mode, withoutMode(options)));
  for (const [name, child] of Object.entries(entries)) node.entries?.set(name, child);
  return node;
}

export function file(data: ErofsData | string, options: Options = {}): ErofsInodeInput {
  const mode = FILE_TYPE.regular | (options.mode ?? 0o644);
  const content: ErofsData =
    typeof data === "string" ? { kind: "inline", bytes: Buffer.from(data, "latin1") } : data;
  return new ErofsInodeInput(attributes(mode, withoutMode(options)), { data: content });
}

export function symlink(target: string, options: Options = {}): ErofsInodeInput {
  const mode = FILE_TYPE.symlink | 0o777;
  return new ErofsInodeInput(attributes(mode, withoutMode(options)), {
    data: symlinkData(target),
  });
}

export function special(mode: number, options: Options = {}): ErofsInodeInput {
  return new ErofsInodeInput(attributes(mode, withoutMode(options)));
}

/** A character device 0:0. */
export function whiteout(): ErofsInodeInput {
  return special(FILE_TYPE.characterDevice | 0o600);
}

export function xattrs(record: Readonly<Record<string, string>>): ReadonlyMap<string, Uint8Array> {
  return new Map(
    Object.entries(record).map(([name, value]) => [name, Buffer.from(value, "latin1")]),
  );
}

function withoutMode(options: Options): Partial<Omit<ErofsAttributes, "mode">> {
  const { mode: _mode, ...rest } = options;
  return rest;
}

/** Bytes that differ from block to block. */
export function deviceBytes(blocks: number, seed: number): Buffer {
  const bytes = Buffer.alloc(blocks * BLOCK);
  let state = (seed * 2654435761) >>> 0 || 1;
  for (let at = 0; at < bytes.length; at += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes.writeUInt32LE(state >>> 0, at);
  }
  return bytes;
}

const anyByte = fc.integer({ min: 1, max: 255 });

/** A byte string that may be a file name. */
export const nameArbitrary: fc.Arbitrary<string> = fc
  .oneof(
    { weight: 8, arbitrary: fc.array(anyByte, { minLength: 1, maxLength: 20 }) },
    { weight: 1, arbitrary: fc.array(anyByte, { minLength: 200, maxLength: 255 }) },
  )
  .map((bytes) => Buffer.from(bytes).toString("latin1").replaceAll("/", "_"))
  .map((name) => (name === "." || name === ".." ? `${name}x` : name));

const modeArbitrary = fc.integer({ min: 0, max: 0o7777 });

const xattrNameArbitrary = fc.oneof(
  fc.constantFrom(
    "user.a",
    "user.overlay.x",
    "security.other",
    "security.selinux",
    "trusted.one",
    "trusted.overlay.overlay.y",
  ),
  nameArbitrary.map((name) => `user.${name.slice(0, 200)}`),
);

const xattrsArbitrary: fc.Arbitrary<ReadonlyMap<string, Uint8Array>> = fc.oneof(
  { weight: 3, arbitrary: fc.constant(NO_XATTRS) },
  {
    weight: 1,
    arbitrary: fc
      .array(
        fc.tuple(
          xattrNameArbitrary,
          fc.oneof(
            fc.constantFrom(Buffer.from("same"), Buffer.alloc(300, 7), Buffer.alloc(0)),
            fc.uint8Array({ maxLength: 700 }),
          ),
        ),
        { maxLength: 5 },
      )
      .map((pairs) => new Map(pairs)),
  },
);

function attributesArbitrary(type: number): fc.Arbitrary<ErofsAttributes> {
  const id = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffffffff }));
  const time = fc.oneof(
    { weight: 2, arbitrary: fc.constant([1_600_000_000, 0] as const) },
    {
      weight: 1,
      arbitrary: fc.tuple(
        fc.integer({ min: -(2 ** 33), max: 2 ** 34 }),
        fc.integer({ min: 0, max: 999_999_999 }),
      ),
    },
  );
  return fc
    .record({ mode: modeArbitrary, uid: id, gid: id, time, xattrs: xattrsArbitrary })
    .map(({ mode, uid, gid, time: [mtimeSec, mtimeNsec], xattrs: found }) => ({
      ...attributes(type | mode),
      uid,
      gid,
      mtimeSec,
      mtimeNsec,
      xattrs: found,
    }));
}

function extentsArbitrary(devices: readonly number[]): fc.Arbitrary<ErofsData> {
  const piece = fc.record({
    hole: fc.integer({ min: 0, max: 9 }),
    blocks: fc.integer({ min: 1, max: 9 }),
    device: fc.integer({ min: 1, max: devices.length }),
    place: fc.nat(),
  });
  return fc
    .record({
      pieces: fc.array(piece, { maxLength: 4 }),
      hole: fc.integer({ min: 0, max: 1000 }),
      cut: fc.integer({ min: 0, max: 511 }),
    })
    .map(({ pieces, hole, cut }) => {
      const extents: ErofsExtent[] = [];
      let at = 0;
      for (const { hole: before, blocks, device, place } of pieces) {
        const room = (devices[device - 1] ?? 0) / BLOCK;
        const length = Math.min(blocks, room) * BLOCK;
        at += before * BLOCK;
        const deviceOffset = (place % (room - length / BLOCK + 1)) * BLOCK;
        extents.push({ fileOffset: at, length, device, deviceOffset });
        at += length;
      }
      const last = extents.at(-1);
      if (last === undefined || hole > 500) return { kind: "extents", size: at + hole, extents };
      extents[extents.length - 1] = { ...last, length: last.length - cut };
      return { kind: "extents", size: at - cut, extents };
    });
}

/** An inode before it is made: generated values are used again, inodes change. */
interface Seed {
  readonly attributes: ErofsAttributes;
  readonly data: ErofsData;
}

function leafArbitrary(devices: readonly number[]): fc.Arbitrary<Seed> {
  const regular = fc.tuple(
    attributesArbitrary(FILE_TYPE.regular),
    fc.oneof(
      extentsArbitrary(devices),
      fc.uint8Array({ minLength: 1, maxLength: 1500 }).map((bytes): ErofsData => {
        return { kind: "inline", bytes };
      }),
    ),
  );
  const link = fc.tuple(
    attributesArbitrary(FILE_TYPE.symlink),
    fc
      .oneof(
        { weight: 5, arbitrary: fc.array(anyByte, { minLength: 1, maxLength: 60 }) },
        { weight: 1, arbitrary: fc.array(anyByte, { minLength: 400, maxLength: 1200 }) },
      )
      .map((bytes): ErofsData => ({ kind: "inline", bytes: Buffer.from(bytes) })),
  );
  return fc.oneof(
    { weight: 4, arbitrary: regular.map(([found, data]) => ({ attributes: found, data })) },
    { weight: 2, arbitrary: link.map(([found, data]) => ({ attributes: found, data })) },
    { weight: 1, arbitrary: deviceArbitrary },
    {
      weight: 1,
      arbitrary: fc
        .constantFrom(FILE_TYPE.fifo, FILE_TYPE.socket)
        .chain((type) => attributesArbitrary(type))
        .map((found) => ({ attributes: found, data: NO_DATA })),
    },
  );
}

const deviceArbitrary = fc
  .record({
    found: fc
      .constantFrom(FILE_TYPE.characterDevice, FILE_TYPE.blockDevice)
      .chain((type) => attributesArbitrary(type)),
    rdevMajor: fc.integer({ min: 0, max: 0xfff }),
    rdevMinor: fc.integer({ min: 0, max: 0xfffff }),
  })
  .map(({ found, rdevMajor, rdevMinor }) => {
    return { attributes: { ...found, rdevMajor, rdevMinor }, data: NO_DATA };
  });

/** Names few enough that layers meet in them. */
const layerNames = ["a", "b", "c", "d", "\xe9\xff", "Z z"];

/** What ext4 can hold too, and what overlayfs treats in its own way. */
function layerAttributes(type: number): fc.Arbitrary<ErofsAttributes> {
  const isUserAllowed = type === FILE_TYPE.regular || type === FILE_TYPE.directory;
  const names = ["trusted.one", "trusted.overlay.overlay.x", "trusted.overlay.y", "security.z"];
  const name = fc.constantFrom(...names, ...(isUserAllowed ? ["user.a"] : []));
  const value = fc.constantFrom("", "1", "value").map((text) => Buffer.from(text));
  return fc
    .record({
      mode: type === FILE_TYPE.symlink ? fc.constant(0o777) : modeArbitrary,
      uid: fc.integer({ min: 0, max: 3 }),
      gid: fc.integer({ min: 0, max: 0xfffffffe }),
      mtimeSec: fc.integer({ min: -(2 ** 31), max: 2 ** 33 }),
      mtimeNsec: fc.integer({ min: 0, max: 999_999_999 }),
      found: fc.oneof(
        { weight: 3, arbitrary: fc.constant([]) },
        { weight: 1, arbitrary: fc.array(fc.tuple(name, value), { maxLength: 3 }) },
      ),
    })
    .map(({ mode, found, ...rest }) => ({
      ...attributes(type | mode),
      ...rest,
      xattrs: new Map<string, Uint8Array>(found),
    }));
}

const layerSeed: fc.Arbitrary<Seed> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc
      .tuple(layerAttributes(FILE_TYPE.regular), fc.uint8Array({ maxLength: 40 }))
      .map(([found, bytes]) => ({
        attributes: found,
        data: bytes.length === 0 ? NO_DATA : ({ kind: "inline", bytes } as const),
      })),
  },
  {
    weight: 1,
    arbitrary: layerAttributes(FILE_TYPE.symlink).map((found) => {
      return { attributes: found, data: symlinkData("somewhere") };
    }),
  },
  {
    weight: 3,
    arbitrary: fc.constant({
      attributes: attributes(FILE_TYPE.characterDevice | 0o600),
      data: NO_DATA,
    }),
  },
  {
    weight: 1,
    arbitrary: fc
      .constantFrom(FILE_TYPE.fifo, FILE_TYPE.socket)
      .chain((type) => layerAttributes(type))
      .map((found) => ({ attributes: found, data: NO_DATA })),
  },
);

const layerDirectory: fc.Arbitrary<Seed> = fc
  .tuple(
    layerAttributes(FILE_TYPE.directory),
    fc.oneof(
      { weight: 3, arbitrary: fc.constant(false) },
      { weight: 1, arbitrary: fc.constant(true) },
    ),
  )
  .map(([found, isOpaque]) => {
    const marked = new Map(found.xattrs);
    if (isOpaque) marked.set("trusted.overlay.opaque", Buffer.from("y"));
    return { attributes: { ...found, xattrs: marked }, data: NO_DATA };
  });

/** A layer: whiteouts, opaque directories, and names that other layers have too. */
export const layerArbitrary: fc.Arbitrary<ErofsInodeInput> = fc
  .tuple(
    layerDirectory,
    fc.array(
      fc.record({
        where: fc.nat(),
        name: fc.constantFrom(...layerNames),
        what: fc.oneof(
          { weight: 3, arbitrary: layerSeed },
          { weight: 4, arbitrary: layerDirectory },
          { weight: 1, arbitrary: fc.constant<"link">("link") },
        ),
        pick: fc.nat(),
      }),
      { minLength: 5, maxLength: 60 },
    ),
  )
  .map(([root, steps]) => plant(new ErofsInodeInput(root.attributes), steps));

/** A step: into which directory (of those made so far), under which name, what. */
interface Step {
  readonly where: number;
  readonly name: string;
  readonly what: Seed | "link";
  readonly pick: number;
}

/** A tree with files on data devices of the given sizes, and some hard links. */
export function treeArbitrary(
  devices: readonly number[],
  options: { readonly maxLength?: number } = {},
): fc.Arbitrary<ErofsInodeInput> {
  const step: fc.Arbitrary<Step> = fc.record({
    where: fc.nat(),
    name: nameArbitrary,
    what: fc.oneof(
      { weight: 4, arbitrary: leafArbitrary(devices) },
      {
        weight: 2,
        arbitrary: attributesArbitrary(FILE_TYPE.directory).map((found) => {
          return { attributes: found, data: NO_DATA };
        }),
      },
      { weight: 1, arbitrary: fc.constant<"link">("link") },
    ),
    pick: fc.nat(),
  });
  return fc
    .tuple(
      attributesArbitrary(FILE_TYPE.directory),
      fc.array(step, { maxLength: options.maxLength ?? 40 }),
    )
    .map(([found, steps]) => plant(new ErofsInodeInput(found), steps));
}

function plant(root: ErofsInodeInput, steps: readonly Step[]): ErofsInodeInput {
  const directories = [root];
  const files: ErofsInodeInput[] = [];
  for (const { where, name, what, pick } of steps) {
    const entries = directories[where % directories.length]?.entries;
    if (entries === undefined || entries.has(name)) continue;
    const node =
      what === "link"
        ? files[pick % files.length]
        : new ErofsInodeInput(what.attributes, { data: what.data });
    if (node === undefined) continue;
    entries.set(name, node);
    if (node.entries !== undefined) directories.push(node);
    else if (what !== "link") files.push(node);
  }
  return root;
}
