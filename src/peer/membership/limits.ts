/** Bounds of the membership protocol. */

/** Members in one view, dead ones that are still remembered among them. */
export const MEMBERS_MAX = 16_384;
/** UTF-8 bytes of a member's id: a DNS name fits. */
export const MEMBER_ID_BYTES_MAX = 253;
/** Bytes of a member's metadata; three alive messages have to fit into one packet. */
export const META_BYTES_MAX = 128;
/** Bytes of messages in one packet: 1232 (IPv6's least MTU less headers) without the seal. */
export const PACKET_MESSAGE_BYTES_MAX = 1150;
/** Messages in one packet. */
export const PACKET_MESSAGES_MAX = 128;
/** Indirect probes that run for others at once; more are dropped, as if the packet was lost. */
export const RELAYED_PROBES_MAX = 1024;
/** Incarnations are sent as 32 bits; a member that is wrong about another 2^32 times is hostile. */
export const INCARNATION_MAX = 0xffff_fffe;
