/** The option string of a FUSE mount. */
import assert from "node:assert/strict";
import { fuseOptionString } from "../../../src/fuse/mount-options.ts";

describe("fuseOptionString", () => {
  it("mounts read-only, checked by the kernel, with much room for waiting reads", () => {
    const text = fuseOptionString({ allowSpecial: false });
    assert.match(text, /^-oro,allow_other,default_permissions,use_ino,kernel_cache,/);
    assert.match(text, /max_background=1024,congestion_threshold=8/);
    assert.ok(!text.includes("suid"));
  });

  it("allows device nodes and set-user-ID programs where the mount is a container's root", () => {
    assert.match(fuseOptionString({ allowSpecial: true }), /,suid,dev$/);
  });

  it("quotes an SELinux context and escapes its commas for libfuse", () => {
    const text = fuseOptionString({ allowSpecial: false, context: "u:r:t:s0:c1,c2" });
    assert.ok(text.endsWith(',context="u:r:t:s0:c1\\,c2"'));
  });

  it("refuses a context that could carry other options", () => {
    for (const context of ['a"b', "a b", "a\nb", ""]) {
      assert.throws(() => fuseOptionString({ allowSpecial: false, context }), /SELinux/);
    }
  });

  it("refuses more than fuse-native's buffer holds", () => {
    const context = "x".repeat(900);
    assert.throws(() => fuseOptionString({ allowSpecial: false, context }), /1023 bytes/);
  });
});
