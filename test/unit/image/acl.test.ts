import assert from "node:assert/strict";
import {
  ACCESS_ACL_XATTR,
  DEFAULT_ACL_XATTR,
  EMPTY_ACL,
  isAcl,
  withAcls,
} from "../../../src/image/acl.ts";
import {
  acl,
  GROUP,
  GROUP_OWNER,
  MASK,
  OTHER,
  OWNER,
  USER,
  type AclEntry,
} from "../../support/acl.ts";

type Entry = AclEntry;

const named = (owner: number, mask: number, other: number): Buffer =>
  acl(
    [OWNER, owner],
    [USER, 5, 1000],
    [GROUP_OWNER, 4],
    [GROUP, 6, 7],
    [MASK, mask],
    [OTHER, other],
  );
const access = (value: Uint8Array): ReadonlyMap<string, Uint8Array> =>
  new Map([[ACCESS_ACL_XATTR, value]]);
const NOTHING: ReadonlyMap<string, Uint8Array> = new Map();

describe("ACLs", () => {
  it("are valid with the three of every file, a mask where somebody is named, in order", () => {
    const bare: Entry[] = [
      [OWNER, 7],
      [GROUP_OWNER, 5],
      [OTHER, 0],
    ];
    assert.ok(isAcl(acl(...bare)));
    assert.ok(isAcl(named(7, 7, 7)));
    assert.ok(isAcl(EMPTY_ACL));
    const [owner, group, other] = bare as [Entry, Entry, Entry];
    for (const [entries, why] of [
      [[owner, group], "no others"],
      [[owner, [USER, 1, 5], group, other], "somebody named without a mask"],
      [[group, owner, other], "order"],
      [[owner, owner, group, other], "two owners"],
      [[owner, group, [MASK, 1], [MASK, 1], other], "two masks"],
      [[[OWNER, 8], group, other], "a permission that is none"],
      [[owner, [USER, 1], group, [MASK, 1], other], "nobody's id"],
      [[owner, group, [3, 1], other], "a tag that is none"],
    ] as const) {
      assert.ok(!isAcl(acl(...entries)), why);
    }
    for (const bytes of [[], [2, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0, 1]]) {
      assert.ok(!isAcl(Buffer.from(bytes)), String(bytes));
    }
  });

  it("take the bits of a mode that is set afterwards: owner, mask and others", () => {
    const found = withAcls(NOTHING, access(named(7, 7, 7)), 0o100_642);
    assert.deepEqual(found.get(ACCESS_ACL_XATTR), named(6, 4, 2));
    assert.deepEqual(withAcls(found, NOTHING, 0o751).get(ACCESS_ACL_XATTR), named(7, 5, 1));
  });

  it("name no id where nobody is named, as the kernel gives them back", () => {
    const value = acl([OWNER, 7, 5], [GROUP_OWNER, 5], [MASK, 5], [OTHER, 1, 9]);
    const kept = acl([OWNER, 7], [GROUP_OWNER, 5], [MASK, 5], [OTHER, 1]);
    assert.deepEqual(withAcls(NOTHING, access(value), 0o751).get(ACCESS_ACL_XATTR), kept);
  });

  it("go where they say what a mode says, or nothing, also those that were there", () => {
    const held = new Map([...access(named(7, 7, 7)), ["user.a", Buffer.from("kept")]]);
    for (const value of [acl([OWNER, 7], [GROUP_OWNER, 5], [OTHER, 0]), EMPTY_ACL]) {
      assert.deepEqual([...withAcls(held, access(value), 0o755).keys()], ["user.a"]);
    }
  });

  it("stay by default as they were set, those of three entries too, but for empty ones", () => {
    const value = acl([OWNER, 7], [GROUP_OWNER, 5], [OTHER, 0]);
    const held = withAcls(NOTHING, new Map([[DEFAULT_ACL_XATTR, value]]), 0o700);
    assert.deepEqual(held.get(DEFAULT_ACL_XATTR), value);
    assert.equal(withAcls(held, new Map([[DEFAULT_ACL_XATTR, EMPTY_ACL]]), 0o700).size, 0);
  });
});
