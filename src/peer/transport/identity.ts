/**
 * A node's name on TLS connections: which certificates it trusts, which it shows, and whom another
 * one belongs to. By default all of it follows from the cluster key, and every start mints a new
 * certificate; an operator may give files instead.
 */
import { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { DaemonError, withContext } from "../../base/errors.ts";
import type { Random } from "../../base/random.ts";
import { checkMemberId } from "../membership/wire.ts";
import { CertificateAuthority } from "./identity-certificate.ts";
import type { KeyPair } from "./identity-certificate.ts";
import { clientUri, memberUri, peerNameOf } from "./identity-names.ts";
import type { PeerName } from "./identity-names.ts";
import type { KeyRing } from "./key-ring.ts";

/** What both sides of a connection speak; AES in hardware is the fastest of the three. */
const CIPHERS = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
/** Characters of a client's name. */
const CLIENT_NAME_CHARS_MAX = 200;
/** Host names and addresses in one certificate. */
const HOSTS_MAX = 64;
const HOST_PATTERN = /^[\w.:*-]{1,253}$/;

export interface TlsMaterial extends KeyPair {
  /** PEM; every authority that is trusted. */
  readonly authorities: readonly string[];
}

/** Options for node:tls that are the same on both sides. */
export interface TlsOptions {
  readonly ca: string[];
  readonly cert: string;
  readonly key: string;
  readonly minVersion: "TLSv1.3";
  readonly maxVersion: "TLSv1.3";
  readonly ciphers: string;
  readonly rejectUnauthorized: true;
  readonly requestCert: true;
}

export interface ClientCertificate extends TlsMaterial {
  readonly name: string;
}

export class Identity {
  readonly memberId: string;
  #material: TlsMaterial;
  #authority: CertificateAuthority | undefined;
  readonly #mint: ((authority: CertificateAuthority) => KeyPair) | undefined;
  readonly #random: Random;
  readonly #listeners = new Set<() => void>();

  private constructor(
    memberId: string,
    source:
      | { readonly files: TlsMaterial }
      | { readonly ring: KeyRing; readonly hosts: readonly string[] },
    random: Random,
  ) {
    this.memberId = memberId;
    this.#random = random;
    if ("files" in source) {
      this.#material = source.files;
      return;
    }
    const { ring, hosts } = source;
    this.#mint = (authority) =>
      authority.mint({
        commonName: memberId,
        uri: memberUri(memberId),
        hosts,
        mayServe: true,
        random,
      });
    this.#authority = new CertificateAuthority(ring.primary.secret);
    this.#material = materialOf(ring, this.#authority, this.#mint);
  }

  /**
   * From the cluster's keys: all are trusted, the first one signs. `hosts` are names and addresses
   * by which plain OCI clients know this node (members go by the id alone). `invalid-argument` for
   * an id or host that cannot be in a certificate.
   */
  static fromRing(
    ring: KeyRing,
    options: {
      readonly memberId: string;
      readonly hosts?: readonly string[];
      readonly random: Random;
    },
  ): Identity {
    checkMemberId(options.memberId);
    const hosts = options.hosts ?? [];
    if (hosts.length > HOSTS_MAX || !hosts.every((host) => HOST_PATTERN.test(host))) {
      throw new DaemonError("invalid-argument", "a host name cannot be in a certificate");
    }
    return new Identity(options.memberId, { ring, hosts }, options.random);
  }

  /**
   * From an operator's files (PEM). The certificate has to name the member, by `faasnet:member:ID`
   * or by a DNS name equal to the id; `invalid-argument` when it does not, or is not the CA's.
   */
  static fromFiles(
    files: { readonly ca: string; readonly cert: string; readonly key: string },
    options: { readonly memberId: string; readonly random: Random },
  ): Identity {
    try {
      const certificate = new X509Certificate(files.cert);
      const name = peerNameOf(certificate.raw);
      if (name.kind !== "member" || !name.ids.includes(options.memberId)) {
        throw new DaemonError("invalid-argument", `it does not name ${options.memberId}`);
      }
    } catch (error) {
      throw withContext(error, "the TLS certificate cannot be used", "invalid-argument");
    }
    const material = { certificate: files.cert, privateKey: files.key, authorities: [files.ca] };
    return new Identity(options.memberId, { files: material }, options.random);
  }

  get material(): TlsMaterial {
    return this.#material;
  }

  get tls(): TlsOptions {
    const { certificate, privateKey, authorities } = this.#material;
    return {
      ca: [...authorities],
      cert: certificate,
      key: privateKey,
      minVersion: "TLSv1.3",
      maxVersion: "TLSv1.3",
      ciphers: CIPHERS,
      rejectUnauthorized: true,
      requestCert: true,
    };
  }

  /** Other keys from now on; connections that are open stay, unless their owner closes them. */
  rotate(ring: KeyRing): void {
    if (this.#mint === undefined) {
      throw new DaemonError("failed-precondition", "certificates from files have no cluster key");
    }
    this.#authority = new CertificateAuthority(ring.primary.secret);
    this.#material = materialOf(ring, this.#authority, this.#mint);
    for (const listener of this.#listeners) listener();
  }

  /** Called after each rotation; the result stops it. */
  onRotate(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** For the keys of session tickets. */
  randomBytes(count: number): Uint8Array {
    return this.#random.bytes(count);
  }

  /**
   * A certificate for a program that is no member: it may read `/v2/` and nothing else.
   * `failed-precondition` where the operator runs the CA.
   */
  exportClient(name: string): ClientCertificate {
    if (this.#authority === undefined) {
      throw new DaemonError("failed-precondition", "the operator's own CA issues certificates");
    }
    if (name === "" || name.length > CLIENT_NAME_CHARS_MAX || /\p{C}/u.test(name)) {
      throw new DaemonError(
        "invalid-argument",
        "a client's name has 1 to 200 printable characters",
      );
    }
    const pair = this.#authority.mint({
      commonName: name,
      uri: clientUri(name),
      hosts: [],
      mayServe: false,
      random: this.#random,
    });
    return { ...pair, name, authorities: this.#material.authorities };
  }
}

/** Every key's authority is trusted; the primary's certificate is shown. */
function materialOf(
  ring: KeyRing,
  primary: CertificateAuthority,
  mint: (authority: CertificateAuthority) => KeyPair,
): TlsMaterial {
  const authorities = ring.keys.map((key) =>
    key === ring.primary ? primary.certificate : new CertificateAuthority(key.secret).certificate,
  );
  return { ...mint(primary), authorities };
}

/** Whose the other end's certificate is; `unauthenticated` when there is none that TLS trusts. */
export function peerNameOfSocket(socket: TLSSocket): PeerName {
  if (!socket.authorized) {
    throw new DaemonError("unauthenticated", "the peer's certificate is not the cluster's");
  }
  const { raw } = socket.getPeerCertificate() as { raw?: Uint8Array };
  if (raw === undefined) throw new DaemonError("unauthenticated", "the peer has no certificate");
  return peerNameOf(raw);
}

/**
 * Why a certificate (DER) that TLS trusts is not that of the member `id`; undefined: it is. For
 * node:tls' checkServerIdentity.
 */
export function memberMismatch(certificate: Uint8Array, id: string): DaemonError | undefined {
  try {
    const name = peerNameOf(certificate);
    if (name.kind === "member" && name.ids.includes(id)) return undefined;
    const found = name.kind === "member" ? name.ids.slice(0, 3).join(", ") : "a client";
    return new DaemonError("unauthenticated", `the certificate is for ${found}, not for ${id}`);
  } catch (error) {
    return withContext(error, "the certificate cannot be read", "unauthenticated");
  }
}
