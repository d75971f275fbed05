import assert from "node:assert/strict";
import { DaemonError } from "../../../../src/base/errors.ts";
import { META_BYTES_MAX } from "../../../../src/peer/membership/limits.ts";
import {
  decodeMeta,
  encodeMeta,
  peerRefOf,
  ZONE_BYTES_MAX,
} from "../../../../src/peer/node/member-meta.ts";
import { infoOf } from "../../../support/peer/swim-fixture.ts";

const META = { version: 1, exchangePort: 7412, zone: "eu-1a" };

describe("Member metadata", () => {
  it("reads back as written", () => {
    const longest = { ...META, zone: "z".repeat(ZONE_BYTES_MAX) };
    for (const meta of [META, { ...META, zone: "" }, longest]) {
      assert.deepEqual(decodeMeta(encodeMeta(meta)), meta);
      assert.ok(encodeMeta(meta).length <= META_BYTES_MAX);
    }
  });

  it("skips what a later version adds", () => {
    assert.deepEqual(decodeMeta(Uint8Array.of(...encodeMeta(META), 1, 2, 3)), META);
  });

  it("is refused when it is cut or its zone is not printable", () => {
    const bytes = encodeMeta(META);
    for (let length = 0; length < bytes.length; length += 1) {
      assert.throws(() => decodeMeta(bytes.subarray(0, length)), DaemonError);
    }
    assert.throws(() => decodeMeta(Uint8Array.of(1, 0, 1, 2, 0xff, 0xfe)), DaemonError);
    assert.throws(() => decodeMeta(Uint8Array.of(1, 0, 1, 200)), DaemonError);
    assert.throws(() => encodeMeta({ ...META, zone: "a b" }), DaemonError);
    assert.throws(() => encodeMeta({ ...META, zone: "z".repeat(65) }), DaemonError);
  });

  it("makes a peer of a member, and none of one whose metadata cannot be read", () => {
    const { id, boot, address } = infoOf(1);
    assert.deepEqual(peerRefOf(infoOf(1, { meta: encodeMeta(META) })), {
      ...{ id, boot, address },
      ...META,
    });
    assert.equal(peerRefOf(infoOf(1, { meta: Uint8Array.of(9) })), undefined);
  });
});
