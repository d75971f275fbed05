/** The error of a malformed archive: names the entry, its place and the rule that it breaks. */
import { DaemonError, type ErrorCode } from "../../base/errors.ts";
import { quoteBytes } from "../quote.ts";

export function tarError(
  rule: string,
  where: { readonly path?: string; readonly offset: number },
  code: ErrorCode = "invalid-argument",
): DaemonError {
  const entry = where.path === undefined ? "tar header" : `tar entry ${quoteBytes(where.path)}`;
  return new DaemonError(code, `${entry} at offset ${where.offset}: ${rule}`, {
    details: { tarOffset: where.offset },
  });
}
