/**
 * A member's metadata: what the layers above membership have to know of it.
 *
 *     meta := version:u8 exchangePort:u16 zoneLength:u8 zone        (big-endian, UTF-8)
 *
 * Bytes behind the zone are a later version's and are skipped.
 */
import { DaemonError } from "../../base/errors.ts";
import type { MemberInfo } from "../membership/member.ts";
import { FieldReader, FieldWriter, malformed } from "../membership/wire.ts";
import type { PeerRef } from "../peer-ref.ts";

/** UTF-8 bytes of a zone's name. */
export const ZONE_BYTES_MAX = 64;

export interface MemberMeta {
  /** The highest wire version that the member speaks. */
  readonly version: number;
  /** TCP; 0: it serves nothing. */
  readonly exchangePort: number;
  /** Empty: none. */
  readonly zone: string;
}

/** Throws `invalid-argument` for a zone that is too long or not printable. */
export function encodeMeta({ version, exchangePort, zone }: MemberMeta): Uint8Array {
  const bytes = Buffer.from(zone, "utf8");
  if (bytes.length > ZONE_BYTES_MAX || /[\p{C}\s]/u.test(zone)) {
    const rule = `at most ${ZONE_BYTES_MAX} bytes without spaces`;
    throw new DaemonError("invalid-argument", `zone ${JSON.stringify(zone)}; it has to be ${rule}`);
  }
  return new FieldWriter().u8(version).u16(exchangePort).u8(bytes.length).bytes(bytes).take();
}

/** What metadata say; a member keeps its bytes for as long as it is known. */
const decoded = new WeakMap<Uint8Array, MemberMeta>();

/** Throws `data-loss`. */
export function decodeMeta(meta: Uint8Array): MemberMeta {
  const known = decoded.get(meta);
  if (known !== undefined) return known;
  const read = readMeta(meta);
  decoded.set(meta, read);
  return read;
}

function readMeta(meta: Uint8Array): MemberMeta {
  const reader = new FieldReader(meta);
  const version = reader.u8();
  const exchangePort = reader.u16();
  const zoneBytes = reader.u8();
  if (zoneBytes > ZONE_BYTES_MAX) throw malformed(`a zone of ${zoneBytes} bytes`);
  const zone = Buffer.from(reader.bytes(zoneBytes)).toString("utf8");
  if (/[\p{C}\s\uFFFD]/u.test(zone)) throw malformed("a zone that is not printable");
  return { version, exchangePort, zone };
}

/** Undefined when its metadata cannot be read: a member for gossip, but nobody to fetch from. */
export function peerRefOf({ id, boot, address, meta }: MemberInfo): PeerRef | undefined {
  try {
    const { exchangePort, zone, version } = decodeMeta(meta);
    return { id, boot, address, exchangePort, zone, version };
  } catch (error) {
    if (error instanceof DaemonError) return undefined;
    throw error;
  }
}
