/** What the protocol asks its driver to do, and what it tells the layers above. */
import type { Address, Member, MemberInfo } from "./member.ts";

export type MembershipEvent =
  /** A new member, or one that was dead or had left. */
  | { readonly kind: "joined"; readonly member: Member }
  /** Metadata, address or boot changed. */
  | { readonly kind: "updated"; readonly member: Member; readonly previous: MemberInfo }
  | { readonly kind: "suspected"; readonly member: Member }
  /** A suspicion was refuted. */
  | { readonly kind: "cleared"; readonly member: Member }
  | { readonly kind: "died"; readonly member: Member }
  | { readonly kind: "left"; readonly member: Member }
  /** Two live nodes were given one id. `member` keeps it in this view. */
  | { readonly kind: "conflict"; readonly member: Member; readonly other: MemberInfo }
  /** MEMBERS_MAX is reached: this one is not taken up. */
  | { readonly kind: "refused"; readonly other: MemberInfo };

/** The boot, where it is known, lets the driver seal for that receiver alone. */
export interface Destination {
  readonly address: Address;
  readonly boot?: string;
}

export type Effect =
  /** One packet of encoded messages. */
  | {
      readonly kind: "send";
      readonly to: Destination;
      readonly messages: readonly Uint8Array[];
    }
  /** A probe over a stream, for where UDP is blocked; answered by the input `stream-ack`. */
  | { readonly kind: "stream-probe"; readonly sequence: number; readonly target: Member }
  /** Exchange views with this member, over a stream; answered by the input `view`. */
  | { readonly kind: "push-pull"; readonly target: Member }
  | { readonly kind: "event"; readonly event: MembershipEvent }
  /** The own leaving has been sent as often as any message is: the node may stop. */
  | { readonly kind: "has-left" };
