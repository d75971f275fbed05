/** References: the grammar, Docker Hub's short names, and what must be refused. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { DaemonError } from "../../../src/base/errors.ts";
import { formatReference, parseReference, tryParseReference } from "../../../src/oci/index.ts";

const HEX = "0123456789abcdef".repeat(4);
const DIGEST = `sha256:${HEX}`;

describe("parseReference", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["debian", "docker.io/library/debian:latest"],
    ["debian:12", "docker.io/library/debian:12"],
    ["library/debian", "docker.io/library/debian:latest"],
    ["user/app", "docker.io/user/app:latest"],
    ["docker.io/debian", "docker.io/library/debian:latest"],
    ["index.docker.io/debian:1", "docker.io/library/debian:1"],
    [`debian@${DIGEST}`, `docker.io/library/debian@${DIGEST}`],
    ["localhost/app", "localhost/app:latest"],
    ["localhost:5000/app:x", "localhost:5000/app:x"],
    [`localhost:5000/a/b:tag@${DIGEST}`, `localhost:5000/a/b:tag@${DIGEST}`],
    ["127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"],
    ["[::1]:5000/app", "[::1]:5000/app:latest"],
    ["quay.io/a/b__c/d-e--f/g.h:V1.0_x-y", "quay.io/a/b__c/d-e--f/g.h:V1.0_x-y"],
    ["Registry/app", "Registry/app:latest"],
    ["host:5000", "docker.io/library/host:5000"],
  ];
  for (const [text, canonical] of cases) {
    it(`reads ${text}`, () => {
      assert.equal(formatReference(parseReference(text)), canonical);
    });
  }

  const malformed = [
    "",
    "Debian",
    "a/B",
    "debian:",
    "debian:a b",
    `debian:${"x".repeat(129)}`,
    "debian@sha256:12",
    `debian@sha512:${HEX}${HEX}`,
    HEX,
    "a//b",
    "/a",
    "a/",
    "a/../b",
    "quay.io/",
    "a_-b",
    "a..b",
    "-host.io/app",
    "host.io:port/app",
    "user:pass@host/app",
    "a\nb",
    `x/${"y".repeat(255)}`,
    "z".repeat(2000),
  ];
  for (const text of malformed) {
    it(`refuses ${JSON.stringify(text.slice(0, 40))}`, () => {
      assert.throws(
        () => parseReference(text),
        (error) => error instanceof DaemonError && error.code === "invalid-argument",
      );
    });
  }

  it("gives any canonical text back unchanged", () => {
    const part = fc.stringMatching(/^[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}$/);
    const domain = fc.oneof(
      fc.constant("docker.io"),
      fc.constant("localhost:5000"),
      fc.constant("[fe80::1]:443"),
      fc.stringMatching(/^[a-z][a-z0-9-]{0,6}[a-z]\.[a-z]{2,4}(:[1-9][0-9]{0,3})?$/),
    );
    const tag = fc.option(fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}$/), {
      nil: undefined,
    });
    const digest = fc.option(fc.constant(DIGEST), { nil: undefined });
    fc.assert(
      fc.property(domain, fc.tuple(part, part), tag, digest, (host, path, one, two) => {
        const suffix = one === undefined && two === undefined ? ":latest" : "";
        const text =
          `${host}/${path.join("/")}` +
          (one === undefined ? suffix : `:${one}`) +
          (two === undefined ? "" : `@${two}`);
        assert.equal(formatReference(parseReference(text)), text);
      }),
    );
  });

  it("answers any text with a reference or undefined, fast", () => {
    const unit = fc.constantFrom(..."abZ09-_./:@[]%sha256\0é ".split(""));
    fc.assert(
      fc.property(fc.string({ unit, maxLength: 300 }), (text) => {
        const reference = tryParseReference(text);
        if (reference === undefined) return;
        assert.deepEqual(parseReference(formatReference(reference)), reference);
      }),
      { numRuns: 2000 },
    );
  });

  it("takes linear time on hostile names", () => {
    const started = process.hrtime.bigint();
    for (const unit of ["-", "_", "a-", "a__", "a.", "0/"]) {
      tryParseReference(`${unit.repeat(1000 / unit.length)}!`);
      tryParseReference(`${unit.repeat(250 / unit.length)}!`);
    }
    assert.ok(process.hrtime.bigint() - started < 200_000_000n);
  });
});
