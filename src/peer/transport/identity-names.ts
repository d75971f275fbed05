/**
 * Who a certificate is for. A member's holds the URI `faasnet:member:ID`, a plain client's
 * `faasnet:client:NAME`, each part percent-encoded (subjectAltName, RFC 5280 4.2.1.6). A URI, since
 * a member id need not be a host name; DNS names and addresses beside it are for clients that check
 * nothing else. That the certificate is the cluster's at all, TLS has checked before.
 */
import { DaemonError } from "../../base/errors.ts";
import { DER_TAG, DerReader, contextTag, implicitTag, malformed, oid } from "./der.ts";

/** Bytes of a certificate that is read: ours have 500, with many names 2,000. */
export const CERTIFICATE_BYTES_MAX = 16 * 1024;
/** Names of one kind in a certificate. */
const NAMES_MAX = 256;

export type PeerName =
  | {
      readonly kind: "member";
      /** Any of them; one where the cluster key made the certificate. */
      readonly ids: readonly string[];
    }
  | { readonly kind: "client"; readonly name: string };

export interface CertificateNames {
  readonly uris: readonly string[];
  readonly dns: readonly string[];
  /** May serve TLS: extKeyUsage is absent or names serverAuth. */
  readonly mayServe: boolean;
}

const OID_SAN = oidContent("2.5.29.17");
const OID_EXT_KEY_USAGE = oidContent("2.5.29.37");
const OID_SERVER_AUTH = oidContent("1.3.6.1.5.5.7.3.1");
const OID_ANY_EXT_KEY_USAGE = oidContent("2.5.29.37.0");

const MEMBER_PREFIX = "faasnet:member:";
const CLIENT_PREFIX = "faasnet:client:";

export function memberUri(id: string): string {
  return MEMBER_PREFIX + encodeURIComponent(id);
}

export function clientUri(name: string): string {
  return CLIENT_PREFIX + encodeURIComponent(name);
}

/**
 * The holder of a certificate (DER), or `unauthenticated`. Where no URI of ours is in it (an
 * operator's own CA), one that may serve is a member by its DNS names, any other a client.
 */
export function peerNameOf(certificate: Uint8Array): PeerName {
  let names: CertificateNames;
  try {
    names = readCertificateNames(certificate);
  } catch (error) {
    throw new DaemonError("unauthenticated", "the certificate cannot be read", { cause: error });
  }
  const member = tailsOf(names.uris, MEMBER_PREFIX);
  if (member.length > 0) return { kind: "member", ids: member };
  const [client] = tailsOf(names.uris, CLIENT_PREFIX);
  if (client !== undefined) return { kind: "client", name: client };
  const [first] = names.dns;
  if (first === undefined) {
    throw new DaemonError("unauthenticated", "the certificate names neither member nor client");
  }
  if (names.mayServe) return { kind: "member", ids: names.dns };
  return { kind: "client", name: first };
}

function tailsOf(uris: readonly string[], prefix: string): string[] {
  const tails: string[] = [];
  for (const uri of uris) {
    if (!uri.startsWith(prefix)) continue;
    try {
      const tail = decodeURIComponent(uri.slice(prefix.length));
      if (tail !== "") tails.push(tail);
    } catch {
      continue; // a stray percent sign: no name of ours
    }
  }
  return tails;
}

/** Reads the names of a certificate in DER; `data-loss` when it is malformed. */
export function readCertificateNames(certificate: Uint8Array): CertificateNames {
  if (certificate.length > CERTIFICATE_BYTES_MAX) throw malformed("it is too long");
  const body = new DerReader(certificate).enter(DER_TAG.sequence).enter(DER_TAG.sequence);
  if (body.peek() === contextTag(0)) body.next();
  body.next(DER_TAG.integer); // serialNumber
  // signature, issuer, validity, subject, subjectPublicKeyInfo
  for (let field = 0; field < 5; field += 1) body.next(DER_TAG.sequence);
  const found = { uris: [] as string[], dns: [] as string[], mayServe: true };
  while (!body.isAtEnd) {
    const { tag, content } = body.next();
    if (tag === contextTag(3)) readExtensions(content, found);
  }
  return found;
}

interface Found {
  readonly uris: string[];
  readonly dns: string[];
  mayServe: boolean;
}

function readExtensions(bytes: Uint8Array, found: Found): void {
  const extensions = new DerReader(bytes).enter(DER_TAG.sequence);
  while (!extensions.isAtEnd) {
    const extension = extensions.enter(DER_TAG.sequence);
    const id = extension.next(DER_TAG.oid).content;
    if (extension.peek() === DER_TAG.boolean) extension.next();
    const value = extension.next(DER_TAG.octetString).content;
    if (OID_SAN.equals(id)) readNames(value, found);
    else if (OID_EXT_KEY_USAGE.equals(id)) found.mayServe = namesServerAuth(value);
  }
}

function readNames(bytes: Uint8Array, found: Found): void {
  const names = new DerReader(bytes).enter(DER_TAG.sequence);
  while (!names.isAtEnd) {
    const { tag, content } = names.next();
    const list = tag === implicitTag(6) ? found.uris : tag === implicitTag(2) ? found.dns : [];
    if (list.length >= NAMES_MAX) throw malformed("too many names");
    list.push(asciiOf(content));
  }
}

/** IA5String: anything above ASCII, or a zero, might read differently elsewhere. */
function asciiOf(bytes: Uint8Array): string {
  if (bytes.some((byte) => byte > 0x7e || byte < 0x20)) {
    // Addresses and directory names are not text; they are in a list that nobody reads.
    return "";
  }
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
}

function namesServerAuth(bytes: Uint8Array): boolean {
  const usages = new DerReader(bytes).enter(DER_TAG.sequence);
  let isServer = false;
  while (!usages.isAtEnd) {
    const id = usages.next(DER_TAG.oid).content;
    if (OID_SERVER_AUTH.equals(id) || OID_ANY_EXT_KEY_USAGE.equals(id)) isServer = true;
  }
  return isServer;
}

function oidContent(text: string): Buffer {
  return oid(text).subarray(2);
}
