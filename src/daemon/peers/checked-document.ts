/** Whether a document is the one that was asked for, whoever gave it. */
import { DaemonError } from "../../base/errors.ts";
import { digestOf, parseManifestDocument } from "../../oci/index.ts";
import type { DocumentName, SharedDocument } from "../../peer/index.ts";

/**
 * `data-loss` when its bytes do not have its digest, it is not what a digest names, or a manifest
 * is none; `unimplemented` for a manifest of Docker's schema 1.
 */
export function checkedDocument(wanted: DocumentName, document: SharedDocument): SharedDocument {
  const { bytes, digest, mediaType } = document;
  const actual = digestOf(bytes);
  if (actual !== digest) throw new DaemonError("data-loss", `${digest} hashes to ${actual}`);
  if (wanted.reference.includes(":") && digest !== wanted.reference) {
    throw new DaemonError("data-loss", `${digest} is not ${wanted.reference}`);
  }
  if (wanted.kind === "manifest") parseManifestDocument(bytes, { mediaType });
  return document;
}
