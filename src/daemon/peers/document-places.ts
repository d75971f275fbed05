/** Where this node itself has documents from: the records of its images, and the registries. */
import { DaemonError } from "../../base/errors.ts";
import {
  digestOf,
  parseManifestDocument,
  tryParseDigest,
  tryParseReference,
} from "../../oci/index.ts";
import type { Digest } from "../../oci/index.ts";
import type { DocumentName, SharedDocument } from "../../peer/index.ts";
import type { RawManifest, RegistryPool } from "../../registry/index.ts";
import type { ImageRecord } from "../image-store.ts";

const DEFAULT_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE = "application/octet-stream";

/** A record's documents as bytes: text that was no UTF-8 would have another digest now. */
interface Documents {
  readonly manifest: SharedDocument | undefined;
  readonly config: SharedDocument;
}

const documentsOf = new WeakMap<ImageRecord, Documents>();

/** What the node's images say; `ageMs` of what a tag means is not known. */
export function storedDocument(
  images: readonly ImageRecord[],
  {
    kind,
    registry,
    name,
    reference,
  }: Omit<DocumentName, "registry"> & { readonly registry?: string | undefined },
): SharedDocument | undefined {
  for (const image of images) {
    const { manifest, config } = recordDocuments(image);
    if (kind === "config" && config.digest === reference) return config;
    if (kind === "config" || manifest === undefined) continue;
    if (manifest.digest === reference) return manifest;
    if (isNamed(image, { registry, name }, reference)) return { ...manifest, ageMs: undefined };
  }
  return undefined;
}

export function configDigest(image: ImageRecord): Digest {
  return recordDocuments(image).config.digest;
}

function recordDocuments(image: ImageRecord): Documents {
  const known = documentsOf.get(image);
  if (known !== undefined) return known;
  const manifest = documentOf(Buffer.from(image.manifest), mediaTypeOf(image.manifest));
  const isSame = manifest.digest === image.manifestDigest;
  const config = documentOf(Buffer.from(image.config), CONFIG_TYPE);
  const documents = { manifest: isSame ? manifest : undefined, config };
  documentsOf.set(image, documents);
  return documents;
}

function documentOf(bytes: Buffer, mediaType: string): SharedDocument {
  return { bytes, mediaType, digest: digestOf(bytes), ageMs: 0 };
}

/** Whether the image was seen under that tag of that repository, the last one that was counts. */
function isNamed(
  image: ImageRecord,
  { registry, name }: { readonly registry: string | undefined; readonly name: string },
  tag: string,
): boolean {
  const reference = tryParseReference(image.reference);
  if (reference?.repository !== name || reference.tag !== tag) return false;
  return registry === undefined || reference.domain === registry;
}

function mediaTypeOf(manifest: string): string {
  const { mediaType } = JSON.parse(manifest) as { readonly mediaType?: unknown };
  return typeof mediaType === "string" ? mediaType : DEFAULT_MANIFEST_TYPE;
}

/** `known`: what the tag meant until lately. Throws what the registry's client throws. */
export async function registryDocument(
  registries: Pick<RegistryPool, "client">,
  { kind, registry, name, reference }: DocumentName,
  { known, signal }: { readonly known?: SharedDocument | undefined; readonly signal: AbortSignal },
): Promise<SharedDocument> {
  const client = registries.client(registry);
  const options = { signal };
  if (kind === "config") {
    const digest = tryParseDigest(reference);
    if (digest === undefined) throw new DaemonError("invalid-argument", "a config has a digest");
    const bytes = await client.fetchConfig(name, { digest }, options);
    return { bytes, mediaType: CONFIG_TYPE, digest, ageMs: 0 };
  }
  if (known !== undefined) {
    const wanted = { ...options, known: known.digest };
    const changed = await client.fetchChangedManifest(name, reference, wanted);
    return changed === undefined ? { ...known, ageMs: 0 } : documentFrom(changed);
  }
  return documentFrom(await client.fetchManifest(name, reference, options));
}

function documentFrom({ bytes, digest, mediaType }: RawManifest): SharedDocument {
  const parsed = parseManifestDocument(bytes, { mediaType });
  const own = parsed.kind === "manifest" ? parsed.manifest.mediaType : parsed.index.mediaType;
  return { bytes, digest, mediaType: mediaType ?? own, ageMs: 0 };
}
