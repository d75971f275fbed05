/** Small rules of HTTP: ranges, retries, proxies, redirects, token servers, error documents. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { DaemonError, errorMessage } from "../../../src/base/errors.ts";
import { parseContentRange, parseLength } from "../../../src/registry/content-range.ts";
import { codeOfStatus, errorCodesOf } from "../../../src/registry/http-status.ts";
import { isLocalOnly, isLoopback } from "../../../src/registry/network-address.ts";
import { proxyFor } from "../../../src/registry/proxy.ts";
import { redirectTarget } from "../../../src/registry/redirect.ts";
import { backoffMs, retryAfterMs } from "../../../src/registry/retry.ts";
import { checkRealm } from "../../../src/registry/token.ts";
import { transportError } from "../../../src/registry/transport-error.ts";

describe("parseContentRange", () => {
  it("reads what a server sends", () => {
    assert.deepEqual(parseContentRange("bytes 0-9/100"), { start: 0, end: 10, total: 100 });
    assert.deepEqual(parseContentRange(" Bytes 5-5/* "), { start: 5, end: 6, total: undefined });
  });

  for (const text of [
    undefined,
    "",
    "bytes */100",
    "bytes 9-5/100",
    "bytes 0-100/100",
    "bytes 0-1",
  ]) {
    it(`refuses ${text ?? "nothing"}`, () => {
      assert.equal(parseContentRange(text), undefined);
    });
  }

  it("reads back any range", () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.integer({ min: 1, max: 2 ** 40 }), (start, length) => {
        const end = start + length;
        fc.pre(Number.isSafeInteger(end));
        const text = `bytes ${start}-${end - 1}/*`;
        assert.deepEqual(parseContentRange(text), { start, end, total: undefined });
      }),
    );
  });

  it("reads lengths", () => {
    assert.equal(parseLength("12"), 12);
    for (const text of [undefined, "", "-1", "1e3", "0x10", "99999999999999999"]) {
      assert.equal(parseLength(text), undefined);
    }
  });
});

describe("retryAfterMs", () => {
  const now = 1_700_000_000n * 1_000_000_000n;
  const cases: readonly (readonly [string | undefined, number | undefined])[] = [
    [undefined, undefined],
    ["0", 0],
    ["120", 120_000],
    ["Tue, 14 Nov 2023 22:13:30 GMT", 10_000],
    ["Tue, 14 Nov 2023 22:13:10 GMT", 0],
    ["-5", undefined],
    ["soon", undefined],
    ["1.5", undefined],
  ];
  for (const [header, expected] of cases) {
    it(`reads ${header ?? "nothing"} as ${expected ?? "nothing"}`, () => {
      assert.equal(retryAfterMs(header, now), expected);
    });
  }
});

describe("backoffMs", () => {
  it("grows up to its limit, always in the upper half of its span", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 60 }),
        fc.double({ min: 0, max: 0.999, noNaN: true }),
        (attempt, value) => {
          const random = { next: () => value, bytes: (count: number) => new Uint8Array(count) };
          const span = Math.min(5000, 100 * 2 ** (attempt - 1));
          const wait = backoffMs(attempt, random);
          assert.ok(wait >= span / 2 && wait < span);
        },
      ),
    );
  });
});

describe("proxyFor", () => {
  const options = {
    httpProxy: "http://plain:3128",
    httpsProxy: "secure:3129",
    noProxy:
      "internal.example, .sub.example,10.0.0.0/8,192.168.1.1,port.example:5000,*.star.example",
  };
  const cases: readonly (readonly [string, string | undefined])[] = [
    ["http://a.example/", "http://plain:3128"],
    ["https://a.example/", "http://secure:3129"],
    ["https://localhost:5000/", undefined],
    ["https://127.0.0.9/", undefined],
    ["http://[::1]/", undefined],
    ["https://internal.example/", undefined],
    ["https://x.internal.example/", undefined],
    ["https://notinternal.example/", "http://secure:3129"],
    ["https://sub.example/", "http://secure:3129"],
    ["https://x.sub.example/", undefined],
    ["https://10.200.0.1/", undefined],
    ["https://11.0.0.1/", "http://secure:3129"],
    ["https://192.168.1.1/", undefined],
    ["https://port.example:5000/", undefined],
    ["https://port.example/", "http://secure:3129"],
    ["https://x.star.example/", undefined],
  ];
  for (const [url, expected] of cases) {
    it(`goes to ${url} ${expected === undefined ? "directly" : `by ${expected}`}`, () => {
      assert.equal(proxyFor(new URL(url), options), expected);
    });
  }

  it("goes directly everywhere for *, and without a proxy", () => {
    const url = new URL("https://a.example");
    assert.equal(proxyFor(url, { ...options, noProxy: "*" }), undefined);
    assert.equal(proxyFor(url, { httpsProxy: "" }), undefined);
  });

  it("ends on any exception list", () => {
    fc.assert(
      fc.property(fc.string(), (noProxy) => {
        proxyFor(new URL("https://a.example"), { ...options, noProxy });
      }),
    );
  });
});

describe("isLoopback", () => {
  it("knows this machine by name and address", () => {
    for (const host of ["localhost", "LOCALHOST", "127.0.0.1", "127.255.0.1", "::1", "[::1]"]) {
      assert.ok(isLoopback(host), host);
    }
    for (const host of ["128.0.0.1", "localhost.example", "::2", "169.254.169.254", ""]) {
      assert.ok(!isLoopback(host), host);
    }
    assert.ok(isLocalOnly("169.254.169.254") && isLocalOnly("[fe80::1]") && isLocalOnly("0.0.0.0"));
    assert.ok(isLocalOnly("[::ffff:127.0.0.1]"));
  });
});

describe("redirectTarget", () => {
  const from = new URL("https://registry.example/v2/a/blobs/x");

  it("resolves relative addresses and goes to other hosts", () => {
    assert.equal(redirectTarget("/y?z=1#f", from).href, "https://registry.example/y?z=1");
    assert.equal(redirectTarget("https://cdn.example/q", from).href, "https://cdn.example/q");
  });

  for (const location of [
    undefined,
    "",
    "http://[",
    "file:///etc/shadow",
    "https://user:s3cret@cdn.example/",
    "http://127.0.0.1:2375/",
    "http://169.254.169.254/latest/",
    "http://[::ffff:127.0.0.1]/",
    `https://cdn.example/${"s3cret".repeat(5000)}`,
  ]) {
    it(`refuses ${location?.slice(0, 40) ?? "nothing"}`, () => {
      assert.throws(
        () => redirectTarget(location, from),
        (error) => error instanceof DaemonError && !errorMessage(error).includes("s3cret"),
      );
    });
  }

  it("lets a loopback registry redirect to loopback", () => {
    const local = new URL("http://127.0.0.1:5000/");
    assert.equal(redirectTarget("http://localhost:9000/x", local).port, "9000");
  });
});

describe("checkRealm", () => {
  const registry = new URL("https://registry.example/v2/");

  it("accepts a token server elsewhere, or a path", () => {
    assert.equal(checkRealm("https://auth.example/t", registry, true).host, "auth.example");
    assert.equal(checkRealm("/token", registry, true).href, "https://registry.example/token");
    assert.equal(checkRealm("http://auth.example/t", registry, false).protocol, "http:");
  });

  for (const [realm, hasCredential] of [
    ["http://auth.example/t", true],
    ["https://u:p@auth.example/t", false],
    ["ftp://auth.example/t", false],
    ["http://[", false],
    ["https://127.0.0.1/t", false],
  ] as const) {
    it(`refuses ${realm}${hasCredential ? " for a login" : ""}`, () => {
      assert.throws(() => checkRealm(realm, registry, hasCredential), DaemonError);
    });
  }
});

describe("errors", () => {
  it("maps statuses to codes", () => {
    const codes = [401, 403, 404, 410, 416, 429, 408, 500, 503, 400].map((one) =>
      codeOfStatus(one),
    );
    assert.deepEqual(codes, [
      "unauthenticated",
      "permission-denied",
      "not-found",
      "not-found",
      "out-of-range",
      "resource-exhausted",
      "unavailable",
      "unavailable",
      "unavailable",
      "failed-precondition",
    ]);
  });

  it("takes only codes from an error document", () => {
    const document = { errors: [{ code: "DENIED", message: "s3cret" }, { code: "x y" }, 5] };
    assert.deepEqual(errorCodesOf(Buffer.from(JSON.stringify(document))), ["DENIED"]);
    for (const text of ["", "<html>", "{}", '{"errors":5}', "null"]) {
      assert.deepEqual(errorCodesOf(Buffer.from(text)), []);
    }
  });

  it("tells certificates, which a person must fix, from what passes", () => {
    const url = new URL("https://r.example/v2/?token=s3cret");
    const of = (code: string): DaemonError =>
      transportError(Object.assign(new Error("s3cret"), { code }), url);
    assert.equal(of("DEPTH_ZERO_SELF_SIGNED_CERT").code, "failed-precondition");
    assert.equal(of("ERR_TLS_CERT_ALTNAME_INVALID").code, "failed-precondition");
    assert.equal(of("ECONNREFUSED").code, "unavailable");
    assert.equal(of("HPE_INVALID_CONSTANT").code, "unavailable");
    assert.doesNotMatch(errorMessage(of("ECONNRESET")), /s3cret/);
  });
});
