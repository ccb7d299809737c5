/** A refresh token is good once: whoever uses it twice has no session any more. Against a server that says so at once. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { Client } from "../dist/index.js";
import { withLocks } from "./locks.js";

/** One session on a server: `refreshes` counts those that it carried out, `ended` says that an old token came. */
class Server {
  refreshes = 0;
  ended = false;
  fetch = async (url, init) => {
    const { refresh_token } = JSON.parse(init.body);
    await new Promise((resolve) => setTimeout(resolve, 5));
    if (this.ended || refresh_token !== `refresh-${this.refreshes}`) {
      this.ended = true;
      return Response.json({ detail: "used before", errors: {} }, { status: 401 });
    }
    this.refreshes++;
    const data = { access_token: `access-${this.refreshes}`, refresh_token: `refresh-${this.refreshes}`, expires_in: 900 };
    return Response.json({ data });
  };
}

const old = { accessToken: "access-0", refreshToken: "refresh-0", expiresAt: 0 };

/** Clients of as many tabs, with one storage. */
function tabs(server, count) {
  const storage = { session: old };
  return Array.from(
    { length: count },
    () =>
      new Client({
        baseUrl: "http://api.test",
        fetch: server.fetch,
        session: old,
        onSession: (session) => (storage.session = session),
        storedSession: () => storage.session,
      }),
  );
}

test("who clicks twice on refresh has one refresh, and both callers have its tokens", async () => {
  const server = new Server();
  const client = new Client({ baseUrl: "http://api.test", fetch: server.fetch, session: old });
  const tokens = await Promise.all([client.refresh(), client.refresh(), client.accessToken()]);
  assert.deepEqual([server.refreshes, server.ended, tokens[2], client.session.refreshToken], [1, false, "access-1", "refresh-1"]);
  await client.refresh();
  assert.deepEqual([server.refreshes, server.ended], [2, false]);
});

test("tabs take turns: the second takes what the first one got", async () => {
  const server = new Server();
  const both = tabs(server, 2);
  await withLocks(() => Promise.all(both.map((each) => each.refresh())));
  assert.deepEqual([server.refreshes, server.ended], [1, false]);
  assert.deepEqual(both.map((each) => each.session.accessToken), ["access-1", "access-1"]);
});

test("a tab that slept through refreshes of others goes on from the newest token", async () => {
  const server = new Server();
  const [awake, asleep] = tabs(server, 2);
  await withLocks(async () => {
    await awake.refresh();
    await awake.refresh();
    assert.equal(await asleep.accessToken(), "access-2");
  });
  assert.deepEqual([server.refreshes, server.ended], [2, false]);
});

test("where there are no locks one after the other is well all the same", async () => {
  const server = new Server();
  const [first, second] = tabs(server, 2);
  await first.refresh();
  await second.refresh();
  assert.deepEqual([server.refreshes, server.ended, second.session.accessToken], [1, false, "access-1"]);
});
