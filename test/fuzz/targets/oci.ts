/** References that people type, and the documents of a registry. */
import {
  choosePlatform,
  formatPlatform,
  formatReference,
  linuxPlatformOf,
  MEDIA_TYPES,
  parseImageConfig,
  parseManifestDocument,
  parsePlatform,
  parseReference,
  planFetch,
  type ImageConfig,
} from "../../../src/oci/index.ts";
import { textOf, tolerate } from "../target.ts";
import type { FuzzTarget } from "../target.ts";

const DIGEST = `sha256:${"1f".repeat(32)}`;
const AMD64 = linuxPlatformOf("x64");

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function texts(...list: string[]): readonly Buffer[] {
  return list.map((text) => Buffer.from(text));
}

const REFERENCE: FuzzTarget = {
  name: "reference",
  seeds: () =>
    texts(
      "debian",
      "docker.io/library/debian:12",
      "localhost:5000/team/app_one/x--y:v1.2",
      `registry.example:8443/a/b.c@${DIGEST}`,
      `[::1]:5000/name:tag@${DIGEST}`,
    ),
  run: (bytes) => {
    const reference = parseReference(textOf(bytes));
    const again = formatReference(parseReference(formatReference(reference)));
    if (again !== formatReference(reference)) throw new Error(`${again} is another reference`);
  },
};

const PLATFORM: FuzzTarget = {
  name: "platform",
  seeds: () => texts("linux/amd64", "linux/arm/v7", "arm64", "linux/arm/v6", "linux/arm64/v8"),
  run: (bytes) => {
    formatPlatform(parsePlatform(textOf(bytes)));
  },
};

const CONFIG = {
  architecture: "amd64",
  os: "linux",
  rootfs: { type: "layers", diff_ids: [DIGEST, DIGEST] },
  history: [{ created_by: "COPY", comment: "c" }, { empty_layer: true }],
};

function descriptor(mediaType: string): object {
  return { mediaType, digest: DIGEST, size: 1234, annotations: { a: "b" } };
}

const MANIFEST_DOCUMENT = {
  schemaVersion: 2,
  mediaType: MEDIA_TYPES.ociManifest,
  config: descriptor("application/vnd.oci.image.config.v1+json"),
  layers: [
    descriptor("application/vnd.oci.image.layer.v1.tar+gzip"),
    { ...descriptor("application/vnd.oci.image.layer.v1.tar+zstd"), urls: ["https://x.example/"] },
  ],
  annotations: { "org.opencontainers.image.title": "title" },
};
const INDEX_DOCUMENT = {
  schemaVersion: 2,
  manifests: ["amd64", "arm64"].map((architecture) => ({
    ...descriptor(MEDIA_TYPES.ociManifest),
    platform: { os: "linux", architecture, variant: "v8", "os.version": "1" },
  })),
};

let config: ImageConfig | undefined;

const MANIFEST: FuzzTarget = {
  name: "manifest",
  seeds: () => [json(MANIFEST_DOCUMENT), json(INDEX_DOCUMENT)],
  run: (bytes) => {
    const document = parseManifestDocument(bytes);
    if (document.kind === "index") {
      const { manifests } = document.index;
      const offered = manifests.map((value) => ({ platform: value.platform, value }));
      tolerate(() => choosePlatform(AMD64, offered));
      return;
    }
    config ??= parseImageConfig(json(CONFIG));
    const plan = config;
    tolerate(() => planFetch(document.manifest, plan));
  },
};

const IMAGE_CONFIG: FuzzTarget = {
  name: "image-config",
  seeds: () => [json(CONFIG)],
  run: (bytes) => {
    const parsed = parseImageConfig(bytes);
    const document = parseManifestDocument(json(MANIFEST_DOCUMENT));
    if (document.kind === "manifest") tolerate(() => planFetch(document.manifest, parsed));
  },
};

export const OCI_TARGETS: readonly FuzzTarget[] = [REFERENCE, PLATFORM, MANIFEST, IMAGE_CONFIG];
