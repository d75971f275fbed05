/** Sizes and ranges in the headers of an answer. Source: RFC 9110, sections 14.2 and 14.4. */
import type { ByteRange } from "../base/range-set.ts";

export interface ContentRange extends ByteRange {
  /** Undefined where the server writes `*`. */
  readonly total: number | undefined;
}

/** Undefined when malformed: the answer then cannot be placed. */
export function parseContentRange(header: string | undefined): ContentRange | undefined {
  const match = /^bytes ([0-9]{1,16})-([0-9]{1,16})\/([0-9]{1,16}|\*)$/i.exec(
    (header ?? "").trim(),
  );
  if (match === null) return undefined;
  const start = Number(match[1]);
  const end = Number(match[2]) + 1;
  const total = match[3] === "*" ? undefined : Number(match[3]);
  const isSound = Number.isSafeInteger(end) && start < end && (total === undefined || end <= total);
  return isSound ? { start, end, total } : undefined;
}

/** A size header (`Content-Length`), undefined when absent or malformed. */
export function parseLength(header: string | undefined): number | undefined {
  if (header === undefined || !/^[0-9]{1,16}$/.test(header.trim())) return undefined;
  const value = Number(header);
  return Number.isSafeInteger(value) ? value : undefined;
}
