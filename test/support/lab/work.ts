/** Real work for a container of each image, and what it prints. */
import type { LabImageName } from "./paths.ts";

export interface ImageWork {
  readonly image: LabImageName;
  readonly command: readonly string[];
  /** A line of its output. */
  readonly prints: RegExp;
}

/** initdb, then a server process that answers a query without a network. */
const POSTGRES_SCRIPT = [
  "set -e",
  "bin=/usr/lib/postgresql/15/bin",
  "$bin/initdb -D /tmp/data > /dev/null",
  "echo 'select 6 * 7 as answer' | $bin/postgres --single -D /tmp/data postgres",
].join("; ");

const PYTHON_SCRIPT = "import numpy; print('trace', numpy.eye(3).trace())";

/** The four images of different kinds. */
export const IMAGE_WORK: readonly ImageWork[] = [
  { image: "pysci", command: ["python3", "-c", PYTHON_SCRIPT], prints: /^trace 3\.0$/m },
  { image: "node", command: ["node", "/app/server.js"], prints: /^ready 200$/m },
  { image: "pg", command: ["/bin/sh", "-c", POSTGRES_SCRIPT], prints: /answer = "42"/ },
  {
    image: "busybox",
    command: ["/bin/sh", "-c", "echo hello | /bin/sha256sum"],
    prints: /^5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03 /m,
  },
];

export function workOf(image: LabImageName): ImageWork {
  const work = IMAGE_WORK.find((entry) => entry.image === image);
  if (work === undefined) throw new Error(`no work for ${image}`);
  return work;
}
