/**
 * The version of what members send each other: packets, views, tree messages and requests have one
 * together. Each says which it speaks (the greeting's hello, a member's metadata), and two speak
 * the highest that both do; docs/formats/membership.md has the rules.
 */

/** The highest that is spoken. Raised when others have to know of a change. */
export const WIRE_VERSION = 1;
/** The lowest; raised a release after the highest, when nobody speaks it alone any more. */
export const WIRE_VERSION_LOWEST = 1;

/** The wire versions that a node speaks, both included; others are refused by name. */
export interface WireVersions {
  readonly lowest: number;
  readonly highest: number;
}

export const WIRE_VERSIONS: WireVersions = { lowest: WIRE_VERSION_LOWEST, highest: WIRE_VERSION };

/** What is written to somebody of whom the highest is known (undefined: nothing is). */
export function spokenVersion({ lowest, highest }: WireVersions, theirs?: number): number {
  return Math.max(lowest, Math.min(highest, theirs ?? lowest));
}

/** As people read it: `1`, `1 to 2`. */
export function versionsText({ lowest, highest }: WireVersions): string {
  return lowest === highest ? String(lowest) : `${lowest} to ${highest}`;
}
