/** Against a server that answers what a real one seldom does. */
import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { Client } from "../dist/index.js";

/** A fetch that gives these answers one after the other, and notes what it was asked. */
function answering(...answers) {
  const asked = [];
  const fetch = async (url, init = {}) => {
    asked.push({ path: url.slice("http://api.test".length), from: init.headers.get("Last-Event-ID") });
    return answers.shift()();
  };
  return { asked, fetch };
}

const problem = (status) => () => Response.json({ detail: "no", errors: {} }, { status });
const begun = "retry: 1\n";

function streaming(...pieces) {
  return () =>
    new Response(
      new ReadableStream({
        start(controller) {
          for (const piece of pieces) controller.enqueue(new TextEncoder().encode(piece));
          controller.close();
        },
      }),
    );
}

const session = { accessToken: "a", refreshToken: "r", expiresAt: Date.now() + 3_600_000 };
const tokens = () => Response.json({ data: { access_token: "b", refresh_token: "s", expires_in: 900 } });

test("who missed too much fetches anew and goes on from there", async () => {
  const event = 'id: p9\nevent: product_listed\ndata: {"sku":"Ä"}\n\n';
  const { asked, fetch } = answering(
    streaming(`${begun}id: p1\n\n`),
    problem(410),
    streaming(begun, ...event), // a byte at a time, but for Ä's two
    streaming(`event: session_ended\ndata: {"reason":"tenant_suspended"}\n\n`),
  );
  const seen = [];
  const ends = [];
  const client = new Client({ baseUrl: "http://api.test", session, fetch });
  const feed = client.feed({
    topics: ["tenant:1", "admin:events"],
    refetch: async () => "p8",
    onEvent: (each) => void seen.push(each),
    onEnd: (end) => ends.push(end.reason),
  });
  await feed.ended;
  assert.deepEqual(asked.map((each) => each.from), [null, "p1", "p8", "p9"]);
  assert.equal(asked[0].path, "/api/v1/feed?topics=tenant%3A1%2Cadmin%3Aevents");
  assert.deepEqual(seen, [{ name: "product_listed", data: { sku: "Ä" }, position: "p9" }]);
  assert.deepEqual(ends, ["tenant_suspended"]);
});

test("a token that expired is refreshed, and the feed goes on", async () => {
  const { asked, fetch } = answering(
    streaming(`${begun}id: p1\n\nevent: session_ended\ndata: {"reason":"token_expired"}\n\n`),
    tokens,
    problem(401),
    tokens,
    problem(403),
  );
  const client = new Client({ baseUrl: "http://api.test", session, fetch });
  const ends = [];
  await client.feed({ onEvent: () => {}, onEnd: (end) => ends.push(end) }).ended;
  const refresh = "/api/v1/auth/refresh";
  assert.deepEqual(asked.map((each) => each.path), ["/api/v1/feed", refresh, "/api/v1/feed", refresh, "/api/v1/feed"]);
  assert.equal(asked[4].from, "p1");
  assert.deepEqual([ends[0].reason, ends[0].problem.status], ["refused", 403]);
});

test("an event whose handling failed comes again", async () => {
  const event = 'id: p2\nevent: x\ndata: 1\n\n';
  const { asked, fetch } = answering(streaming(`${begun}id: p1\n\n${event}`), streaming(`${begun}${event}`), problem(403));
  const client = new Client({ baseUrl: "http://api.test", session, fetch });
  const errors = [];
  let handled = 0;
  const onEvent = () => {
    handled += 1;
    if (handled === 1) throw new Error("the page's own");
  };
  await client.feed({ onEvent, onError: (error) => errors.push(error.message) }).ended;
  assert.deepEqual(asked.map((each) => each.from), [null, "p1", "p2"]);
  assert.deepEqual([handled, errors], [2, ["the page's own"]]);
});

test("a server that cannot be reached is asked more and more seldom", async () => {
  const real = globalThis.setTimeout;
  const waited = [];
  mock.method(globalThis, "setTimeout", (wake, afterMs) => {
    if (afterMs !== 45_000) waited.push(afterMs); // but for the watchdog
    return real(wake, 0);
  });
  const away = () => {
    throw new TypeError("fetch failed");
  };
  const { fetch } = answering(away, away, away, away, problem(403));
  await new Client({ baseUrl: "http://api.test", session, fetch }).feed({ onEvent: () => {} }).ended;
  mock.restoreAll();
  assert.equal(waited.length, 4);
  for (const [n, afterMs] of waited.entries()) {
    const most = 1_000 * 2 ** (n + 1);
    assert.ok(most / 2 <= afterMs && afterMs <= most, `${waited}`);
  }
});

test("whoever logs in next is not asked for what the last one did", async () => {
  const done = () => Response.json({ data: {} }, { status: 202, headers: { "X-Position": "p1" } });
  const login = { email: "a@a.test", password: "x" };
  for (const leave of [(client) => client.logOut(), async () => {}]) {
    const answers = [done, done, tokens];
    const positions = [];
    const fetch = async (url, init) => {
      positions.push(init.headers.get("X-Position"));
      return (answers.shift() ?? done)();
    };
    const client = new Client({ baseUrl: "http://api.test", session, fetch });
    await client.post("/api/v1/products", { body: {} });
    assert.equal(client.position, "p1");
    await leave(client);
    if (client.session !== null) answers.shift();
    await client.logIn(login);
    await client.get("/api/v1/products");
    assert.equal(positions.at(-1), null);
  }
});
