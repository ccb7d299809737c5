/** Against a real server: what a page does with it. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Client, Problem } from "../dist/index.js";
import { withLocks } from "./locks.js";
import { Serving, until } from "./serving.js";

const serving = new Serving();
const credentials = JSON.parse(process.env.CREDENTIALS);

before(() => serving.start());
after(() => serving.stop());

async function loggedIn(options = {}) {
  const client = new Client({ baseUrl: serving.url, ...options });
  await client.logIn(credentials);
  return client;
}

function lists(client, sku, options = {}) {
  return client.post("/api/v1/products", { body: { sku, name: "Mug", price: "9.00" }, ...options });
}

test("what a command did is in the next query, and a repeat under its key does it once", async () => {
  const client = await loggedIn();
  const idempotencyKey = crypto.randomUUID();
  const first = await lists(client, "ONCE", { idempotencyKey });
  const again = await lists(client, "ONCE", { idempotencyKey });
  assert.equal(first.status, 201);
  assert.deepEqual(again.data, first.data);
  assert.equal(client.position, first.position);
  const found = await client.get("/api/v1/products", { query: { limit: 100 } });
  assert.deepEqual(found.data.data.filter((each) => each.sku === "ONCE").map((each) => each.id), [first.data.data.id]);
  const id = first.data.data.id;
  const changed = await client.put("/api/v1/products/{product_id}/price", {
    path: { product_id: id },
    body: { price: "7.00" },
    ifMatch: first.etag,
  });
  assert.equal(changed.data.data.price, "7.00");
  await assert.rejects(lists(client, "ONCE"), (error) => error instanceof Problem && error.status === 409);
});

test("an access token that is no longer good is refreshed once, however many ask", async () => {
  const sessions = [];
  const first = await loggedIn();
  const session = { ...first.session, accessToken: "stale", expiresAt: Date.now() + 60_000 };
  const client = new Client({ baseUrl: serving.url, session, onSession: (each) => sessions.push(each) });
  const answers = await Promise.all(Array.from({ length: 5 }, () => client.get("/api/v1/users/me")));
  assert.deepEqual(answers.map((each) => each.status), [200, 200, 200, 200, 200]);
  assert.equal(sessions.length, 1);
  await client.logOut();
  assert.equal(client.session, null);
  await assert.rejects(client.get("/api/v1/users/me"), (error) => error.status === 401);
});

test("tabs that share a session refresh at the same moment and all stay logged in", async () => {
  const first = await loggedIn();
  const shop = { session: first.session };
  const tabs = Array.from({ length: 4 }, () => {
    const session = { ...first.session };
    return new Client({ baseUrl: serving.url, session, onSession: (each) => (shop.session = each), storedSession: () => shop.session });
  });
  await withLocks(() => Promise.all(tabs.map((each) => each.refresh())));
  await withLocks(() => tabs[3].refresh());
  await withLocks(() => tabs[0].refresh());
  const answers = await Promise.all(tabs.map((each) => each.get("/api/v1/users/me")));
  assert.deepEqual(answers.map((each) => each.status), [200, 200, 200, 200]);
});

test("a feed misses nothing and tells nothing twice when the server stops, is killed, and comes back", async () => {
  const client = await loggedIn();
  const seen = [];
  const states = [];
  const topic = `tenant:${(await client.get("/api/v1/users/me")).data.data.tenant_id}`;
  const feed = client.feed({
    topics: [topic],
    from: client.position ?? (await client.get("/api/v1/products")).position,
    onEvent: ({ data }) => void seen.push(data.sku),
    onState: (state) => states.push(state),
  });
  const expected = [];
  for (const [round, signal] of ["SIGTERM", "SIGKILL", null].entries()) {
    for (let n = 0; n < 5; n++) {
      expected.push(`R${round}-${n}`);
      await lists(client, expected.at(-1));
    }
    if (round < 2) {
      await until(() => seen.length >= round * 5 + 2);
      await serving.stop(signal);
      await serving.start();
    }
  }
  await until(() => seen.length >= expected.length);
  assert.deepEqual(seen, expected);
  assert.ok(states.filter((each) => each === "open").length >= 3, states.join());
  feed.close();
  await feed.ended;
});

test("a feed ends with its session, and says so", async () => {
  const client = await loggedIn();
  const ends = [];
  let open = false;
  const feed = client.feed({ onEvent: () => {}, onEnd: (end) => ends.push(end), onState: (state) => (open ||= state === "open") });
  await until(() => open);
  await client.logOut();
  await feed.ended;
  assert.deepEqual(ends, [{ reason: "session_revoked", problem: null }]);
});
