/** Images that nobody has seen, made from a seed: their maps, chains and blocks are all new. */
import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import { Prng } from "../../fuzz/prng.ts";
import { packTar, type PackedMember } from "../layers/layer-builder.ts";
import { imageFacts, type ImageFacts, type Registry } from "../lab/index.ts";

const OCI = "application/vnd.oci.image";
const KIB = 1024;
/** Several blocks each, and small ones between them. */
const LARGE_FILES = 2;
const LARGE_BYTES = 1400 * KIB;
const SMALL_FILES = 12;
const SMALL_BYTES_MAX = 40 * KIB;

export interface MadeLayer {
  readonly tar: Buffer;
  /** By path, without a leading slash. */
  readonly files: ReadonlyMap<string, string>;
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Half of it compresses well, so that blocks of gzip differ in length. */
function content(random: Prng, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at + 4 <= length; at += 4) {
    bytes.writeUInt32LE((at >> 14) % 2 === 0 ? random.uint32() : random.below(4), at);
  }
  return bytes;
}

async function makeLayer(random: Prng, name: string): Promise<MadeLayer> {
  const members: PackedMember[] = [];
  const files = new Map<string, string>();
  const add = (path: string, length: number): void => {
    const data = content(random, length);
    members.push({ name: path, data });
    files.set(path, sha256(data));
  };
  for (let at = 0; at < LARGE_FILES; at += 1) {
    add(`${name}/large-${at}`, LARGE_BYTES + random.below(64 * KIB));
    for (let small = 0; small < SMALL_FILES / LARGE_FILES; small += 1) {
      add(`${name}/small-${at}-${small}`, random.below(SMALL_BYTES_MAX));
    }
  }
  return { tar: await packTar(members), files };
}

async function put(url: string, body: Buffer, type: string): Promise<void> {
  const headers = { "content-type": type };
  const response = await fetch(url, { method: "PUT", headers, body: new Uint8Array(body) });
  if (!response.ok) throw new Error(`PUT ${url}: ${response.status} ${await response.text()}`);
}

async function pushBlob(registry: Registry, repository: string, blob: Buffer): Promise<string> {
  const digest = `sha256:${sha256(blob)}`;
  const base = `http://${registry.address}/v2/${repository}/blobs/uploads/`;
  const begun = await fetch(base, { method: "POST" });
  const place = new URL(begun.headers.get("location") ?? "", base);
  place.searchParams.set("digest", digest);
  await put(place.href, blob, "application/octet-stream");
  return digest;
}

export interface MadeImage {
  readonly facts: ImageFacts;
  /** sha256 of the regular files that were added, by absolute path. */
  readonly files: ReadonlyMap<string, string>;
}

/** Pushes `repository:1`: the layers of `base` and two of its own. */
export async function pushMadeImage(
  registry: Registry,
  repository: string,
  base: { readonly registry: Registry; readonly repository: string },
  seed: number,
): Promise<MadeImage> {
  const random = new Prng(seed, 1);
  const below = await imageFacts(base.registry, base.repository);
  const diffIds = [...below.diffIds];
  const layers: object[] = [];
  const add = async (blob: Buffer, kind: "tar" | "tar+gzip"): Promise<void> => {
    const digest = await pushBlob(registry, repository, blob);
    layers.push({ mediaType: `${OCI}.layer.v1.${kind}`, digest, size: blob.length });
  };
  for (const { digest } of below.manifest.layers) {
    const from = `http://${base.registry.address}/v2/${base.repository}/blobs/${digest}`;
    await add(Buffer.from(await (await fetch(from)).arrayBuffer()), "tar+gzip");
  }
  const files = new Map<string, string>();
  for (const [at, kind] of (["tar+gzip", "tar"] as const).entries()) {
    const layer = await makeLayer(random, `made-${at}`);
    await add(kind === "tar" ? layer.tar : gzipSync(layer.tar, { level: 1 }), kind);
    diffIds.push(`sha256:${sha256(layer.tar)}`);
    for (const [path, digest] of layer.files) files.set(`/${path}`, digest);
  }
  const config = Buffer.from(
    JSON.stringify({
      architecture: "amd64",
      os: "linux",
      config: { Env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] },
      rootfs: { type: "layers", diff_ids: diffIds },
    }),
  );
  const manifest = {
    schemaVersion: 2,
    mediaType: `${OCI}.manifest.v1+json`,
    config: {
      mediaType: `${OCI}.config.v1+json`,
      digest: await pushBlob(registry, repository, config),
      size: config.length,
    },
    layers,
  };
  const url = `http://${registry.address}/v2/${repository}/manifests/1`;
  await put(url, Buffer.from(JSON.stringify(manifest)), manifest.mediaType);
  return { facts: await imageFacts(registry, repository), files };
}
