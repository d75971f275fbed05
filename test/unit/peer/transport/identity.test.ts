import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { connect, createServer } from "node:tls";
import type { AddressInfo } from "node:net";
import type { PeerCertificate, TLSSocket } from "node:tls";
import fc from "fast-check";
import { DaemonError } from "../../../../src/base/errors.ts";
import { systemRandom } from "../../../../src/base/random.ts";
import { DerReader, element, integer, oid, sequence } from "../../../../src/peer/transport/der.ts";
import { CertificateAuthority } from "../../../../src/peer/transport/identity-certificate.ts";
import {
  memberUri,
  peerNameOf,
  readCertificateNames,
} from "../../../../src/peer/transport/identity-names.ts";
import {
  Identity,
  memberMismatch,
  peerNameOfSocket,
} from "../../../../src/peer/transport/identity.ts";
import { KeyRing } from "../../../../src/peer/transport/key-ring.ts";

const OLD = Buffer.alloc(32, 1);
const NEW = Buffer.alloc(32, 2);
const random = systemRandom;

function identityOf(secrets: readonly Uint8Array[], memberId = "node-1"): Identity {
  return Identity.fromRing(new KeyRing(secrets), { memberId, random, hosts: ["127.0.0.1", "::1"] });
}

/** One handshake between two identities: what each side knows of the other, or why it failed. */
async function shake(
  server: Identity,
  client: Identity["tls"] | ReturnType<Identity["exportClient"]>,
  meant = server.memberId,
): Promise<{ client: string; server: string }> {
  const names: string[] = [];
  const listener = createServer(server.tls, (socket: TLSSocket) => {
    names.push(JSON.stringify(peerNameOfSocket(socket)));
    socket.end("ok");
  });
  listener.on("tlsClientError", () => names.push("refused"));
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const { port } = listener.address() as AddressInfo;
  const options =
    "name" in client
      ? { ca: [...client.authorities], cert: client.certificate, key: client.privateKey }
      : client;
  const outcome = await new Promise<string>((resolve) => {
    const socket = connect({
      ...options,
      port,
      host: "127.0.0.1",
      checkServerIdentity: (_host: string, { raw }: PeerCertificate) => memberMismatch(raw, meant),
    });
    socket.on("error", (error: Error) => {
      resolve(error.message);
    });
    socket.on("data", () => {
      resolve("ok");
      socket.destroy();
    });
  });
  await new Promise((resolve) => listener.close(resolve));
  return { client: outcome, server: names[0] ?? "nothing" };
}

describe("a member's identity", () => {
  it("is accepted by every member of the same cluster, by name", async () => {
    const one = identityOf([OLD], "node+1/é");
    const other = identityOf([OLD], "node-2");

    const result = await shake(one, other.tls);

    assert.equal(result.client, "ok");
    assert.deepEqual(JSON.parse(result.server), { kind: "member", ids: ["node-2"] });
  });

  it("is refused by another cluster, both ways", async () => {
    const result = await shake(identityOf([OLD]), identityOf([NEW], "node-2").tls);

    assert.match(result.client, /certificate|alert/);
  });

  it("is not taken for another member's", async () => {
    const result = await shake(identityOf([OLD]), identityOf([OLD], "node-2").tls, "node-3");

    assert.equal(result.client, "the certificate is for node-1, not for node-3");
  });

  it("lets a client in as a client, and never as a member that serves", async () => {
    const issuer = identityOf([OLD]);
    const exported = issuer.exportClient("skopeo");

    const result = await shake(issuer, exported);
    assert.deepEqual(JSON.parse(result.server), { kind: "client", name: "skopeo" });
    const certificate = new X509Certificate(exported.certificate);
    assert.match(memberMismatch(certificate.raw, "skopeo")?.message ?? "", /is for a client/);
    assert.deepEqual(certificate.keyUsage, ["1.3.6.1.5.5.7.3.2"]);
  });

  it("rotates without a moment in which members refuse each other", async () => {
    const before = [OLD];
    const both = [OLD, NEW];
    const turned = [NEW, OLD];
    const after = [NEW];
    for (const [one, other] of [
      [before, both],
      [both, turned],
      [turned, after],
    ] as const) {
      const a = await shake(identityOf(one), identityOf(other, "node-2").tls);
      const b = await shake(identityOf(other, "node-2"), identityOf(one).tls);
      assert.deepEqual([a.client, b.client], ["ok", "ok"]);
    }
    assert.notEqual((await shake(identityOf(before), identityOf(after).tls)).client, "ok");
  });

  it("shows the primary key's certificate after a rotation, and tells its owners", () => {
    const identity = identityOf([OLD]);
    let told = 0;
    const stop = identity.onRotate(() => (told += 1));
    const first = identity.material.certificate;
    identity.rotate(new KeyRing([NEW, OLD]));
    stop();
    identity.rotate(new KeyRing([NEW]));

    assert.equal(told, 1);
    assert.notEqual(identity.material.certificate, first);
    const issuer = new X509Certificate(new CertificateAuthority(NEW).certificate);
    const shown = new X509Certificate(identity.material.certificate);
    assert.ok(shown.verify(issuer.publicKey) && shown.checkIssued(issuer));
  });

  it("is valid whatever the clock says, and new at every start", () => {
    const [one, other] = [identityOf([OLD]), identityOf([OLD])];
    const certificate = new X509Certificate(one.material.certificate);

    assert.equal(certificate.validFrom, "Jan  1 00:00:00 1970 GMT");
    assert.match(certificate.validTo, /9999/);
    assert.notEqual(one.material.certificate, other.material.certificate);
    assert.deepEqual(one.material.authorities, other.material.authorities);
  });

  it("has the member's id as a URI, and hosts beside it for other clients", () => {
    const names = readCertificateNames(
      new X509Certificate(identityOf([OLD]).material.certificate).raw,
    );

    assert.deepEqual(names.uris, ["faasnet:member:node-1"]);
    const certificate = new X509Certificate(identityOf([OLD]).material.certificate);
    assert.equal(certificate.checkIP("127.0.0.1"), "127.0.0.1");
    assert.ok(certificate.checkIP("::1") !== undefined);
  });

  it("refuses ids and hosts that no certificate can hold", () => {
    const ring = new KeyRing([OLD]);
    for (const memberId of ["", "x".repeat(300), "a b"]) {
      assert.throws(() => Identity.fromRing(ring, { memberId, random }), {
        code: "invalid-argument",
      });
    }
    assert.throws(() => Identity.fromRing(ring, { memberId: "a", random, hosts: ["not a host"] }), {
      code: "invalid-argument",
    });
  });
});

describe("an identity from an operator's files", () => {
  const authority = new CertificateAuthority(NEW);
  const leaf = (uri: string, hosts: readonly string[]) =>
    authority.mint({ commonName: "x", uri, hosts, mayServe: true, random });

  it("takes a member by a DNS name where there is no URI of ours", async () => {
    const pair = leaf("https://elsewhere/", ["node-1", "node-1.example"]);
    const files = { ca: authority.certificate, cert: pair.certificate, key: pair.privateKey };
    const identity = Identity.fromFiles(files, { memberId: "node-1", random });

    assert.equal((await shake(identity, identity.tls)).client, "ok");
    assert.throws(() => identity.exportClient("x"), { code: "failed-precondition" });
    assert.throws(
      () => {
        identity.rotate(new KeyRing([OLD]));
      },
      { code: "failed-precondition" },
    );
  });

  it("refuses a certificate that names somebody else, or is none", () => {
    const pair = leaf(memberUri("node-2"), []);
    const files = { ca: authority.certificate, cert: pair.certificate, key: pair.privateKey };
    for (const cert of [pair.certificate, "nothing"]) {
      assert.throws(() => Identity.fromFiles({ ...files, cert }, { memberId: "node-1", random }), {
        code: "invalid-argument",
      });
    }
  });
});

describe("certificates as bytes", () => {
  const sample = new X509Certificate(identityOf([OLD]).material.certificate).raw;

  it("are read, or refused, whatever they are", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        try {
          peerNameOf(bytes);
        } catch (error) {
          assert.ok(error instanceof DaemonError && error.code === "unauthenticated");
        }
      }),
    );
  });

  it("are read, or refused, with any byte changed", () => {
    for (let at = 0; at < sample.length; at += 1) {
      for (const flip of [1, 0x80, 0xff]) {
        const bytes = Buffer.from(sample);
        bytes[at] = (bytes[at] ?? 0) ^ flip;
        try {
          peerNameOf(bytes);
        } catch (error) {
          assert.ok(error instanceof DaemonError && error.code === "unauthenticated");
        }
      }
    }
  });

  it("keep any id whole", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", minLength: 1, maxLength: 40 }), (id) => {
        const pair = new CertificateAuthority(OLD).mint({
          commonName: id,
          uri: memberUri(id),
          hosts: [],
          mayServe: true,
          random,
        });
        const name = peerNameOf(new X509Certificate(pair.certificate).raw);
        assert.deepEqual(name, { kind: "member", ids: [id] });
      }),
      { numRuns: 10 },
    );
  });
});

describe("DER", () => {
  it("writes what X.690 gives as examples", () => {
    assert.equal(oid("2.100.3").toString("hex"), "0603813403"); // 8.19.5
    assert.equal(integer(Buffer.of(0)).toString("hex"), "020100");
    assert.equal(integer(Buffer.of(0, 0x80)).toString("hex"), "02020080");
    assert.equal(
      sequence(element(4, Buffer.alloc(200)))
        .subarray(0, 6)
        .toString("hex"),
      "3081cb0481c8",
    );
    assert.equal(element(4, Buffer.alloc(70_000 % 65_536)).length, 4 + 4464);
  });

  it("refuses lengths of any other form than the shortest", () => {
    for (const hex of [
      "0480",
      "048105" + "00".repeat(5),
      "04820001" + "00",
      "0485" + "00".repeat(9),
    ]) {
      assert.throws(() => new DerReader(Buffer.from(hex, "hex")).next(), { code: "data-loss" });
    }
    assert.throws(() => new DerReader(Buffer.from("1f0101", "hex")).next(), { code: "data-loss" });
    assert.throws(() => new DerReader(Buffer.from("0405", "hex")).next(), { code: "data-loss" });
    assert.throws(() => new DerReader(Buffer.from("0400", "hex")).next(2), { code: "data-loss" });
  });
});
