import assert from "node:assert/strict";
import { spokenVersion, versionsText, WIRE_VERSIONS } from "../../../src/peer/wire-versions.ts";

describe("Wire versions", () => {
  it("are a range with the one that is spoken to strangers at its lower end", () => {
    const { lowest, highest } = WIRE_VERSIONS;
    assert.ok(lowest >= 1 && lowest <= highest && highest <= 255);
    assert.equal(spokenVersion({ lowest: 2, highest: 4 }), 2);
  });

  it("meet at the lower of the two highest", () => {
    const versions = { lowest: 2, highest: 4 };
    assert.deepEqual(
      [1, 2, 3, 4, 9].map((theirs) => spokenVersion(versions, theirs)),
      [2, 2, 3, 4, 4],
    );
  });

  it("are written as people read them", () => {
    assert.equal(versionsText({ lowest: 1, highest: 1 }), "1");
    assert.equal(versionsText({ lowest: 1, highest: 2 }), "1 to 2");
  });
});
