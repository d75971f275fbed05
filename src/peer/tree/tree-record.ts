/** What a manager, or its deputy, knows of one member of a tree. */
import type { PeerRef } from "../peer-ref.ts";
import type { Report, Seat } from "./messages.ts";

export interface TreeRecord {
  ref: PeerRef;
  /** Of all that others need to reach it: theirs is another position when it changes. */
  hash: number;
  heldBlocks: number;
  interior: number;
  bytesPerSecond: number;
  /** As its last report showed; absent: it has none yet. */
  seat: Seat | undefined;
  seenMs: number;
  /** Of its last swap: not moved again for a while. */
  movedMs: number;
  /** Until when it stays a leaf. */
  barredUntilMs: number;
  /** Heartbeats in a row in which it was far slower than its peers. */
  slowFor: number;
}

export function recordOf(report: Report, nowMs: number): TreeRecord {
  return {
    ref: report.member,
    hash: refHash(report.member),
    heldBlocks: report.heldBlocks,
    interior: report.interior,
    bytesPerSecond: report.bytesPerSecond,
    seat: report.seat,
    seenMs: nowMs,
    movedMs: -Infinity,
    barredUntilMs: -Infinity,
    slowFor: 0,
  };
}

/** Takes a report up; true when the member is reached in another way from now on. */
export function updateRecord(record: TreeRecord, report: Report, nowMs: number): boolean {
  record.heldBlocks = report.heldBlocks;
  record.interior = report.interior;
  record.bytesPerSecond = report.bytesPerSecond;
  record.seat = report.seat;
  record.seenMs = nowMs;
  if (isSameRef(record.ref, report.member)) return false;
  record.ref = report.member;
  record.hash = refHash(report.member);
  return true;
}

function isSameRef(one: PeerRef, other: PeerRef): boolean {
  return (
    one.boot === other.boot &&
    one.address.host === other.address.host &&
    one.address.port === other.address.port &&
    one.exchangePort === other.exchangePort &&
    one.version === other.version
  );
}

export function refHash({ boot, address, exchangePort, version }: PeerRef): number {
  return textHash(`${boot} ${address.host} ${address.port} ${exchangePort} ${version}`);
}

/** FNV-1a. */
export function textHash(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) hash = addHash(hash, text.charCodeAt(at));
  return hash >>> 0;
}

export function addHash(hash: number, value: number): number {
  return Math.imul((hash ^ value) + (hash >>> 15), 0x01000193);
}
