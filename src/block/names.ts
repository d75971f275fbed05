/** Short names for messages. */

/** `sha256:0123456789ab`, for messages; logs carry the full digest in a field. */
export function shortDigest(digest: string): string {
  return digest.slice(0, "sha256:".length + 12);
}
