/**
 * The cluster's own certificate authority, which whoever holds the cluster key can compute: its
 * key is Ed25519 (RFC 8032, RFC 8410) from HKDF of the cluster key. Certificates are valid for all
 * time: a fresh machine's clock may be wrong by years, and a key is taken back by rotating the
 * cluster key.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  sign,
} from "node:crypto";
import type { KeyObject } from "node:crypto";
import { isIP } from "node:net";
import type { Random } from "../../base/random.ts";
import { addressBytes } from "../membership/wire.ts";
import {
  DER_TAG,
  bitString,
  contextTag,
  derTrue,
  element,
  implicitTag,
  integer,
  octetString,
  oid,
  sequence,
} from "./der.ts";
import { derive } from "./key-ring.ts";

const CA_INFO = "faasnet ca v1";
const SEED_BYTES = 32;
const SERIAL_BYTES = 15;
/** PKCS #8 (RFC 5958) around an Ed25519 seed. Source: RFC 8410 section 7. */
const ED25519_PKCS8_HEAD = Buffer.from("302e020100300506032b657004220420", "hex");
/** X.520 ub-common-name. */
const COMMON_NAME_CHARS_MAX = 64;
const PEM_LINE_CHARS = 64;

const ED25519 = sequence(oid("1.3.101.112"));
/** RFC 5280 4.1.2.5: the last moment means "no expiry"; before 2050 a UTCTime has to be used. */
const ALWAYS = sequence(
  element(DER_TAG.utcTime, Buffer.from("700101000000Z")),
  element(DER_TAG.generalizedTime, Buffer.from("99991231235959Z")),
);
const KEY_CERT_SIGN = bitString(Buffer.of(0x04), 2);
const DIGITAL_SIGNATURE = bitString(Buffer.of(0x80), 7);
const SERVER_AUTH = oid("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH = oid("1.3.6.1.5.5.7.3.2");

/** PEM texts. */
export interface KeyPair {
  readonly certificate: string;
  readonly privateKey: string;
}

export interface LeafOptions {
  readonly commonName: string;
  readonly uri: string;
  /** Host names and addresses, for clients that know the node by them. */
  readonly hosts: readonly string[];
  readonly mayServe: boolean;
  readonly random: Random;
}

export class CertificateAuthority {
  readonly #key: KeyObject;
  readonly #name: Buffer;
  readonly #keyId: Buffer;
  /** PEM; the same bytes wherever the cluster key is the same. */
  readonly certificate: string;

  constructor(clusterKey: Uint8Array) {
    const seed = derive(clusterKey, new Uint8Array(), CA_INFO, SEED_BYTES);
    const encoded = Buffer.concat([ED25519_PKCS8_HEAD, seed]);
    this.#key = createPrivateKey({ key: encoded, format: "der", type: "pkcs8" });
    const publicKey = createPublicKey(this.#key);
    this.#keyId = keyIdOf(publicKey);
    // The name differs by key: verifiers look an issuer up by name, and a ring holds several.
    this.#name = commonName(`faasnet cluster ${this.#keyId.toString("hex", 0, 8)}`);
    this.certificate = this.#issue({
      subject: this.#name,
      publicKey,
      serial: this.#keyId.subarray(0, SERIAL_BYTES),
      extensions: [
        extension("2.5.29.19", sequence(derTrue()), true), // basicConstraints: cA
        extension("2.5.29.15", KEY_CERT_SIGN, true),
      ],
    });
  }

  /** A certificate with a key of its own. */
  mint(options: LeafOptions): KeyPair {
    const { publicKey, privateKey } = generateKeyPairSync("ed25519");
    const usages = options.mayServe ? [SERVER_AUTH, CLIENT_AUTH] : [CLIENT_AUTH];
    const names = [
      element(implicitTag(6), Buffer.from(options.uri, "latin1")),
      ...options.hosts.map(hostName),
    ];
    const certificate = this.#issue({
      subject: commonName(options.commonName),
      publicKey,
      serial: options.random.bytes(SERIAL_BYTES),
      extensions: [
        extension("2.5.29.15", DIGITAL_SIGNATURE, true),
        extension("2.5.29.37", sequence(...usages)),
        extension("2.5.29.17", sequence(...names)),
      ],
    });
    const pem = privateKey.export({ type: "pkcs8", format: "pem" });
    return { certificate, privateKey: pem.toString() };
  }

  /** Source: RFC 5280 4.1. */
  #issue(leaf: {
    readonly subject: Buffer;
    readonly publicKey: KeyObject;
    readonly serial: Uint8Array;
    readonly extensions: readonly Buffer[];
  }): string {
    const keyIds = [
      extension("2.5.29.14", octetString(keyIdOf(leaf.publicKey))),
      extension("2.5.29.35", sequence(element(implicitTag(0), this.#keyId))),
    ];
    const body = sequence(
      element(contextTag(0), integer(Buffer.of(2))), // version 3
      integer(leaf.serial),
      ED25519,
      this.#name,
      ALWAYS,
      leaf.subject,
      leaf.publicKey.export({ type: "spki", format: "der" }),
      element(contextTag(3), sequence(...leaf.extensions, ...keyIds)),
    );
    return pemOf(sequence(body, ED25519, bitString(sign(null, body, this.#key))));
  }
}

function commonName(text: string): Buffer {
  const value = element(
    DER_TAG.utf8String,
    Buffer.from(Array.from(text).slice(0, COMMON_NAME_CHARS_MAX).join("")),
  );
  return sequence(element(DER_TAG.set, sequence(oid("2.5.4.3"), value)));
}

function extension(id: string, value: Uint8Array, isCritical = false): Buffer {
  return sequence(oid(id), ...(isCritical ? [derTrue()] : []), octetString(value));
}

function hostName(host: string): Buffer {
  if (isIP(host) !== 0) return element(implicitTag(7), addressBytes(host));
  return element(implicitTag(2), Buffer.from(host, "latin1"));
}

/** The first method of RFC 7093: the leftmost 160 bits of a SHA-256 of the public key. */
function keyIdOf(publicKey: KeyObject): Buffer {
  const encoded = publicKey.export({ type: "spki", format: "der" });
  return createHash("sha256").update(encoded).digest().subarray(0, 20);
}

function pemOf(der: Uint8Array): string {
  const text = Buffer.from(der).toString("base64");
  const lines = text.match(new RegExp(`.{1,${PEM_LINE_CHARS}}`, "g")) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}
