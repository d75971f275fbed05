/** GNU tar packs a real folder; the map's tree is that folder again. */
import assert from "node:assert/strict";
import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { ErofsReader } from "../../../src/erofs/index.ts";
import { makeLayerMap, openLayerMap } from "../../../src/image/index.ts";
import { digestOf, parseDiffId } from "../../../src/oci/index.ts";
import {
  compareTrees,
  Lab,
  needs,
  run,
  walkTree,
  type TreeEntry,
  type TreeManifest,
} from "../../support/lab/index.ts";
import { chunksOf } from "../../support/layers/index.ts";
import { treeOf } from "./map-tree.ts";

/** Fills the folder $1, which must be new and empty: it never works anywhere else. */
const MAKE_FOLDER = String.raw`
set -eu
cd -- "$1"
test "$PWD" != /
test -z "$(ls -A)"
umask 022
mkdir -p dir/sub empty "long-$(printf 'n%.0s' $(seq 200))/$(printf 'm%.0s' $(seq 200))"
echo hello > dir/file
head -c 1000000 /dev/urandom > dir/sub/random
printf 'x' > "$(printf 'latin1-\351')"
printf 'y' > 'with space and
newline'
: > "$(printf 'm%.0s' $(seq 200))-empty"
ln dir/file hard-link
ln -s dir/file symlink
ln -s "$(printf 't%.0s' $(seq 300))" long-symlink
ln symlink hard-symlink
mkfifo fifo
mknod char c 5 1
mknod block b 259 70000
chmod 4755 dir/file; chmod 1777 empty; chmod 2750 dir/sub
chown 12345:54321 dir/sub/random
chown 3000000000:2147483648 symlink -h
truncate -s 3M sparse
printf 'a' | dd of=sparse bs=1 seek=5000 conv=notrunc status=none
head -c 9000 /dev/urandom | dd of=sparse bs=4096 seek=300 conv=notrunc status=none
truncate -s 1M hole
truncate -s 20M many; for i in $(seq 0 60); do printf z | dd of=many bs=1 seek=$((i*320000)) conv=notrunc status=none; done
truncate -s 100001 sparse-odd; printf q | dd of=sparse-odd bs=1 seek=100000 conv=notrunc status=none
setfattr -n user.text -v value dir/file
setfattr -n user.binary -v 0x00ff3d0a dir
setcap cap_net_raw+ep dir/sub/random
setfacl -m u:5:rwx dir/file
setfacl -d -m g:6:rx empty
find "$1" -xdev -exec touch -h -d '2001-02-03 04:05:06.123456789' {} +
touch -h -d '@0' fifo
touch -h -d '@-86400.25' symlink
`;

interface Format {
  readonly args: readonly string[];
  /** ustar-like formats keep whole seconds and no xattrs. */
  readonly isPax: boolean;
}

const FORMATS: Readonly<Record<string, Format>> = {
  gnu: { args: ["--format=gnu"], isPax: false },
  "gnu, sparse": { args: ["--format=gnu", "--sparse"], isPax: false },
  oldgnu: { args: ["--format=oldgnu", "--sparse"], isPax: false },
  pax: { args: ["--format=posix", "--xattrs", "--xattrs-include=*"], isPax: true },
  ...Object.fromEntries(
    ["0.0", "0.1", "1.0"].map((version) => [
      `pax, sparse ${version}`,
      {
        args: [
          "--format=posix",
          "--xattrs",
          "--xattrs-include=*",
          "--sparse",
          `--sparse-version=${version}`,
        ],
        isPax: true,
      },
    ]),
  ),
};

describe("layer maps of GNU tar's archives", function () {
  this.timeout(120_000);
  let lab: Lab;
  let source: string;
  let expected: TreeManifest;

  before(async function () {
    needs(this, {
      root: true,
      commands: ["tar", "gcc", "setfattr", "setcap", "setfacl", "mknod", "dd"],
    });
    lab = await Lab.create();
    source = await lab.makeFolder("source");
    await run("bash", ["-c", MAKE_FOLDER, "make-folder", source]);
    expected = await walkTree(source);
  });

  after(async () => {
    // The hook before may have skipped.
    await (lab as Lab | undefined)?.[Symbol.asyncDispose]();
  });

  for (const [name, format] of Object.entries(FORMATS)) {
    it(`show the folder that was packed (${name})`, async () => {
      const path = lab.path(`${name.replace(/\W/g, "")}.tar`);
      await run("tar", ["-C", source, "--numeric-owner", ...format.args, "-cf", path, "."]);
      const actual = await mapAndRead(path);
      const wanted = format.isPax ? forPax(expected) : withoutPax(expected);
      assert.deepEqual(compareTrees(wanted, actual), []);
    });
  }

  async function mapAndRead(path: string): Promise<TreeManifest> {
    const tar = await readFile(path);
    const blob = gzipSync(tar, { level: 1 });
    await makeLayerMap({
      blob: chunksOf(blob),
      descriptor: { digest: digestOf(blob), size: blob.length, mediaType: "test" },
      diffId: parseDiffId(digestOf(tar)),
      mapPath: `${path}.map`,
      signal: new AbortController().signal,
    });
    await using map = await openLayerMap(`${path}.map`);
    return treeOf(ErofsReader.open(await map.readMetadata()), [tar]);
  }

  it("agree for the plain stream of the same archive", async () => {
    const path = lab.path("plain.tar");
    await run("tar", ["-C", source, "--numeric-owner", "--format=posix", "-cf", path, "."]);
    const tar = await readFile(path);
    const { info } = await makeLayerMap({
      blob: createReadStream(path),
      descriptor: { digest: digestOf(tar), size: tar.length, mediaType: "test" },
      diffId: parseDiffId(digestOf(tar)),
      mapPath: `${path}.map`,
      signal: new AbortController().signal,
    });
    assert.equal(info.compression, "none");
    assert.equal(info.entries, expected.size);
  });
});

/** The root's mode and owner are the snapshotter's own. */
function forPax(tree: TreeManifest): TreeManifest {
  return mapEntries(tree, (entry, path) => ({
    ...entry,
    ...(path === "." ? { mode: "0755", uid: "0", gid: "0" } : {}),
  }));
}

function withoutPax(tree: TreeManifest): TreeManifest {
  return mapEntries(forPax(tree), (entry) => {
    const [seconds = "0", fraction = ""] = entry.mtime.split(".");
    // GNU tar rounds towards the past, as the fields here do.
    assert.equal(fraction.length, 9);
    return { ...entry, mtime: `${seconds}.000000000`, xattrs: "-" };
  });
}

function mapEntries(
  tree: TreeManifest,
  change: (entry: TreeEntry, path: string) => TreeEntry,
): TreeManifest {
  return new Map([...tree].map(([path, entry]) => [path, change(entry, path)]));
}
