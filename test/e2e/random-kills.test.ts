/** kill -9 of each of our processes, and of any two, at random moments: scripts/kills for more. */
import { KillSession, partsOf, planOf } from "../support/kills/index.ts";
import { Lab, needs } from "../support/lab/index.ts";

const SEED = 4;
const KILLS = 50;
/** Most of a kill's time is waiting: for containerd's next try, for pauses before restarts. */
const SESSIONS = 3;
const CHECKPOINT_KILLS = 20;

describe("Processes killed at random moments", function () {
  this.timeout(300_000);
  let lab: Lab;
  let sessions: readonly KillSession[];

  before(async function () {
    needs(this, {
      root: true,
      fuse: true,
      program: true,
      containerd: ["2"],
      images: ["busybox", "edge"],
    });
    lab = await Lab.create();
    const starts = Array.from({ length: SESSIONS }, () => KillSession.start(lab, { seed: SEED }));
    sessions = await Promise.all(starts);
  });

  after(async () => {
    await lab[Symbol.asyncDispose]();
  });

  it(`serve right bytes, lose nothing and leave nothing through ${KILLS} kills`, async () => {
    const parts = partsOf(planOf(SEED, KILLS), SESSIONS);
    const runs = sessions.map(async (session, at) => {
      for (const [index, kill] of (parts[at] ?? []).entries()) {
        await session.kill(kill);
        if ((index + 1) % CHECKPOINT_KILLS === 0) await session.checkpoint();
      }
      await session.checkpoint();
    });
    await Promise.all(runs);
  });

  it("leave nothing at all after a stop", async () => {
    for (const session of sessions) await session.stop();
  });
});
