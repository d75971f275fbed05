/** A member as the layers above name it: enough to send to it and to fetch from it. */
import type { Address } from "./membership/index.ts";

export interface PeerRef {
  /** Unique in the cluster; also the name in its certificate. */
  readonly id: string;
  /** 32 hex digits, another one at every start. */
  readonly boot: string;
  /** UDP: membership and tree packets. */
  readonly address: Address;
  /** TCP, at the host of `address`: blocks, maps, views. */
  readonly exchangePort: number;
  /** Where it stands; members of one zone feed each other first. Empty: no zone was configured. */
  readonly zone: string;
  /** The highest wire version that it speaks. */
  readonly version: number;
}
