/** WWW-Authenticate as servers write it, and as nobody should. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { chooseScheme, parseChallenges } from "../../../src/registry/challenge.ts";

function plain(header: string): readonly unknown[] {
  return parseChallenges(header).map(({ scheme, parameters }) => [scheme, ...parameters]);
}

describe("parseChallenges", () => {
  const cases: readonly (readonly [string, readonly unknown[]])[] = [
    ['Basic realm="x"', [["basic", ["realm", "x"]]]],
    ["Negotiate", [["negotiate"]]],
    [
      'Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push"',
      [
        [
          "bearer",
          ["realm", "https://auth.example/token"],
          ["service", "reg"],
          ["scope", "repository:a/b:pull,push"],
        ],
      ],
    ],
    [
      'Basic realm="a, b=\\"c\\"", Bearer realm=https://x/t , service = y',
      [
        ["basic", ["realm", 'a, b="c"']],
        ["bearer", ["realm", "https://x/t"], ["service", "y"]],
      ],
    ],
    ["Negotiate, Basic REALM=x, realm=y", [["negotiate"], ["basic", ["realm", "x"]]]],
    ['Bearer realm="unterminated', [["bearer", ["realm", "unterminated"]]]],
    [",,, ;", []],
    ["", []],
  ];
  for (const [header, expected] of cases) {
    it(`reads ${JSON.stringify(header)}`, () => {
      assert.deepEqual(plain(header), expected);
    });
  }

  it("reads back what it is given", () => {
    const scheme = fc.stringMatching(/^[A-Za-z]{1,10}$/);
    const name = fc.stringMatching(/^[a-z_]{1,10}$/);
    const value = fc.string({ unit: fc.constantFrom(...'ab\\", =:/.'.split("")), maxLength: 20 });
    const challenge = fc.tuple(
      scheme,
      fc.uniqueArray(fc.tuple(name, value), { maxLength: 5, selector: ([key]) => key }),
    );
    fc.assert(
      fc.property(fc.array(challenge, { maxLength: 4 }), (challenges) => {
        const header = challenges
          .map(([kind, parameters]) => {
            const list = parameters.map(
              ([key, text]) => `${key}="${text.replace(/(["\\])/g, "\\$1")}"`,
            );
            return `${kind} ${list.join(", ")}`;
          })
          .join(", ");
        assert.deepEqual(
          plain(header),
          challenges.map(([kind, parameters]) => [kind.toLowerCase(), ...parameters]),
        );
      }),
    );
  });

  it("ends on any text, within its limits", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 500 }), (header) => {
        const challenges = parseChallenges(header);
        assert.ok(challenges.length <= 16);
        assert.ok(challenges.every(({ parameters }) => parameters.size <= 32));
      }),
      { numRuns: 1000 },
    );
    assert.equal(parseChallenges("a ".repeat(100_000)).length, 16);
  });
});

describe("chooseScheme", () => {
  it("prefers Bearer to Basic, over several headers", () => {
    const scheme = chooseScheme(["Basic realm=x", 'Bearer realm="https://t"']);
    assert.equal(scheme?.kind, "bearer");
  });

  it("knows neither where there is neither", () => {
    assert.equal(chooseScheme(["Negotiate", "Bearer service=x"]), undefined);
    assert.equal(chooseScheme([]), undefined);
  });
});
