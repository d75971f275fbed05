/**
 * The tar and the blob of a generated layer. What tar-stream can express goes through it; the rest
 * (bytes that are no UTF-8, fractions, large owners, xattrs, sparse files) is raw blocks under a
 * pax header.
 */
import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import {
  END,
  packTar,
  padded,
  paxHeader,
  rawMember,
  sampleBytes,
  type PackedMember,
} from "../layers/index.ts";
import type { Attributes, Entry, Layer } from "./image.ts";
import type { ValidEntry } from "./valid.ts";

export interface BuiltLayer {
  readonly tar: Buffer;
  readonly blob: Buffer;
  readonly diffId: string;
  readonly digest: string;
}

const TAR_BLOCK = 512;
/** tar-stream writes owners and device numbers with 6 octal digits, times as 32-bit numbers. */
const PACKED_NUMBER_MAX = 0o777777;
const PACKED_TIME_MAX = 0x7fff_ffff;
const PLAIN: Attributes = {
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtimeSec: 1_100_000_000,
  mtimeNsec: 0,
  xattrs: [],
};

const TYPES = {
  file: "file",
  dir: "directory",
  fifo: "fifo",
  symlink: "symlink",
  char: "character-device",
  block: "block-device",
  link: "link",
  whiteout: "file",
  opaque: "file",
  root: "directory",
  crowd: "directory",
} as const;
const FLAGS = {
  file: "0",
  link: "1",
  symlink: "2",
  "character-device": "3",
  "block-device": "4",
  directory: "5",
  fifo: "6",
} as const;

/** Each piece a zstd frame. */
export type ZstdFrames = (pieces: readonly Buffer[]) => Promise<Buffer>;

export async function buildLayer(
  layer: Layer,
  entries: readonly ValidEntry[],
  zstd: ZstdFrames,
): Promise<BuiltLayer> {
  const members: Buffer[] = [];
  for (const valid of entries) {
    members.push(await memberOf(valid));
    if (valid.entry.kind === "crowd") members.push(await crowdOf(valid.name, valid.entry.files));
  }
  const tar = Buffer.concat([...members, END]);
  const blob = await compress(tar, layer, zstd);
  return { tar, blob, diffId: sha256(tar), digest: sha256(blob) };
}

function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

async function compress(tar: Buffer, { codec, pieces }: Layer, zstd: ZstdFrames): Promise<Buffer> {
  if (codec === "none") return tar;
  const pieceBytes = Math.ceil(tar.length / pieces);
  const cut: Buffer[] = [];
  for (let start = 0; start < tar.length; start += pieceBytes) {
    cut.push(tar.subarray(start, start + pieceBytes));
  }
  return codec === "zstd" ? zstd(cut) : Buffer.concat(cut.map((piece) => gzipSync(piece)));
}

function attributesOf(entry: Entry): Attributes {
  return "attributes" in entry ? entry.attributes : PLAIN;
}

async function memberOf(valid: ValidEntry): Promise<Buffer> {
  const { entry } = valid;
  const isPlain = entry.kind !== "file" || !entry.isSparse;
  return isPlain && isExpressible(valid) ? packed(memberFor(valid)) : rawForm(valid);
}

/** As tar-stream's pack has it, without the end marker. */
async function packed(member: PackedMember): Promise<Buffer> {
  const bytes = await packTar([member]);
  return bytes.subarray(0, bytes.length - END.length);
}

async function crowdOf(folder: string, files: number): Promise<Buffer> {
  const form = await rawForm({
    entry: { kind: "file", path: [], attributes: PLAIN, bytes: 0, content: 0, isSparse: false },
    name: "",
    linkTarget: "",
  });
  const header = form.subarray(-TAR_BLOCK);
  // Only a pax header has room for a long folder: the header's own name is ignored below it.
  const members = Array.from({ length: files }, (_none, index) =>
    Buffer.concat([paxHeader([["path", `${folder}/file ${index}`]]), header]),
  );
  return Buffer.concat(members);
}

function isExpressible({ entry, name, linkTarget }: ValidEntry): boolean {
  const { uid, gid, mtimeSec, mtimeNsec, xattrs } = attributesOf(entry);
  const texts = [name, linkTarget, entry.kind === "symlink" ? entry.target : ""];
  return (
    texts.every((text) => /^[\x20-\x7e]{0,90}$/.test(text)) &&
    Math.max(uid, gid, "minor" in entry ? entry.minor : 0) <= PACKED_NUMBER_MAX &&
    mtimeSec >= 0 &&
    mtimeSec <= PACKED_TIME_MAX &&
    mtimeNsec === 0 &&
    xattrs.length === 0
  );
}

function linkName({ entry, linkTarget }: ValidEntry): string {
  return entry.kind === "symlink" ? entry.target : linkTarget;
}

function memberFor(valid: ValidEntry): PackedMember {
  const { entry, name } = valid;
  const { mode, uid, gid, mtimeSec } = attributesOf(entry);
  const type = TYPES[entry.kind];
  const target = linkName(valid);
  return {
    name,
    type,
    mode,
    uid,
    gid,
    mtime: new Date(mtimeSec * 1000),
    ...(target === "" ? {} : { linkname: target }),
    ...("major" in entry ? { devmajor: entry.major, devminor: entry.minor } : {}),
    ...(type === "file" ? { data: dataOf(entry) } : {}),
  };
}

/** By content: few, and slow to make. */
const samples = new Map<number, Buffer>();

function dataOf(entry: Entry): Buffer {
  if (entry.kind !== "file") return Buffer.alloc(0);
  const known = samples.get(entry.content);
  const isEnough = known !== undefined && known.length >= entry.bytes;
  const sample = isEnough ? known : sampleBytes(entry.bytes, entry.content + 1);
  samples.set(entry.content, sample);
  return sample.subarray(0, entry.bytes);
}

/** Seconds and a fraction; the fraction counts away from zero. */
function paxTime(seconds: number, nanoseconds: number): string {
  if (nanoseconds === 0) return String(seconds);
  const isNegative = seconds < 0;
  const whole = isNegative ? -seconds - 1 : seconds;
  const part = isNegative ? 1_000_000_000 - nanoseconds : nanoseconds;
  return `${isNegative ? "-" : ""}${whole}.${String(part).padStart(9, "0")}`;
}

async function rawForm(valid: ValidEntry): Promise<Buffer> {
  const { entry, name } = valid;
  const { mode, uid, gid, mtimeSec, mtimeNsec, xattrs } = attributesOf(entry);
  const records: (readonly [string, string])[] = [
    ["mtime", paxTime(mtimeSec, mtimeNsec)],
    ["uid", String(uid)],
    ["gid", String(gid)],
  ];
  const target = linkName(valid);
  if (target !== "") records.push(["linkpath", target]);
  for (const [key, value] of xattrs) records.push([`SCHILY.xattr.${key}`, value]);
  let data = dataOf(entry);
  if (entry.kind === "file" && entry.isSparse) {
    records.push(["GNU.sparse.major", "1"], ["GNU.sparse.minor", "0"]);
    records.push(["GNU.sparse.name", name], ["GNU.sparse.realsize", String(realSize(entry.bytes))]);
    data = sparseData(data);
  } else records.push(["path", name]);
  const device = "major" in entry ? { devmajor: entry.major, devminor: entry.minor } : {};
  const typeflag = FLAGS[TYPES[entry.kind]];
  const fields = { name: "named-above", mode, typeflag, ...device };
  return Promise.resolve(Buffer.concat([paxHeader(records), rawMember(fields, data)]));
}

const HOLE_BYTES = 8 * TAR_BLOCK;

/** A hole before the data, and one behind. */
function realSize(bytes: number): number {
  return 2 * HOLE_BYTES + Math.ceil(bytes / TAR_BLOCK) * TAR_BLOCK;
}

/** GNU's format 1.0: the map is the data's own beginning. */
function sparseData(data: Buffer): Buffer {
  const body = padded(data);
  const end = realSize(data.length);
  const segments = body.length === 0 ? [] : [[HOLE_BYTES, body.length]];
  const numbers = [segments.length + 1, ...segments.flat(), end, 0];
  return Buffer.concat([padded(Buffer.from(`${numbers.join("\n")}\n`)), body]);
}
