/** What a role's supervisor does with one that ends while it is waited for. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { LOCK_HELD_EXIT_STATUS } from "../../../src/base/process-lock.ts";
import { RoleSupervisor } from "../../../src/daemon/supervisor.ts";

/** Lives as it is told: each life is one line of `lives`. */
const ROLE = `
import { appendFileSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
const [folder, ...lives] = process.argv.slice(2);
appendFileSync(folder + "/pids", process.pid + "\\n");
const life = lives[readFileSync(folder + "/pids", "utf8").trim().split("\\n").length - 1];
if (life === "killed") process.kill(process.pid, "SIGKILL");
else if (life === "serves") {
  rmSync(folder + "/role.sock", { force: true });
  createServer(() => undefined).listen(folder + "/role.sock");
} else process.exit(Number(life));
`;

describe("RoleSupervisor", function () {
  this.timeout(20_000);
  const { signal } = new AbortController();
  let folder: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "faasnet-role-"));
    await writeFile(join(folder, "role.mjs"), ROLE);
  });
  afterEach(async () => {
    for (const pid of await pids()) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        continue; // it has ended
      }
    }
    await rm(folder, { recursive: true });
  });

  async function pids(): Promise<readonly number[]> {
    return (await readFile(join(folder, "pids"), "utf8")).trim().split("\n").map(Number);
  }

  function supervisor(...lives: readonly string[]): RoleSupervisor {
    const spec = {
      name: "role",
      entry: pathToFileURL(join(folder, "role.mjs")).href,
      args: [folder, ...lives],
      nodeOptions: [],
      socket: join(folder, "role.sock"),
      isTied: false,
    };
    return new RoleSupervisor(spec, systemClock, silentLogger);
  }

  it("spawns it again when it is killed, or finds its lock held", async () => {
    await using role = supervisor("killed", String(LOCK_HELD_EXIT_STATUS), "serves");
    await role.start({ signal });
    assert.equal((await pids()).length, 3);
  });

  it("gives up at once on one that ends by itself", async () => {
    await using role = supervisor("1", "serves");
    await assert.rejects(role.start({ signal }), /role did not start: exit code 1/);
    assert.equal((await pids()).length, 1);
  });

  it("says when one that was killed is back", async () => {
    await using role = supervisor("serves", "serves");
    await role.start({ signal });
    const [first = 0] = await pids();
    process.kill(first, "SIGKILL");
    while (role.restarts === 0) await systemClock.sleep(5, { signal });
    await role.reached({ signal });
    assert.equal((await pids()).length, 2);
  });
});
