// The page: logs in, fetches what is there, and follows the feed from the position of that answer, so that nothing falls between.
import { Client } from "/live/client.js";
import { Problem } from "/live/problem.js";
import { Sales, counted, money, when } from "/live/sales.js";

const ROWS = 30;
const SUMMED_EACH_MS = 1_000;
/** A reader of screens is told this often, of all that came meanwhile. */
const ANNOUNCED_EACH_MS = 5_000;
const KEPT = "bitnexus live";
const STATES = { connecting: "Connecting …", open: "Live", waiting: "Reconnecting …", offline: "No connection" };
const ENDED = {
  session_revoked: "Your session has ended. Log in again.",
  tenant_suspended: "The shop is suspended.",
};

const by = (id) => document.getElementById(id);
const now = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

// The session is in the browser's storage from the moment the page is left until it is there again: so it outlives a reload, and a
// second tab never has the same refresh token, which would end the session.
let { shop, session } = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
addEventListener("pagehide", () => {
  if (session) sessionStorage.setItem(KEPT, JSON.stringify({ shop, session }));
});
addEventListener("pageshow", () => sessionStorage.removeItem(KEPT));

const client = new Client({
  baseUrl: location.origin,
  session: session ?? null,
  onSession: (changed) => {
    session = changed;
    if (changed === null && feed !== null) leave("Your session has ended. Log in again.");
  },
});
const sales = new Sales(by("list"), async (id) => {
  const { data } = await client.get("/api/v1/products/{product_id}", { path: { product_id: id } });
  return data.data.name;
});
let feed = null;
let lost = 0; // connections, since the page was opened
let summed = false; // a sum is under way, or about to be
let sums = true; // until the API refuses them: others than admins have none
let fresh = []; // sales not announced yet

// Logging in

by("log-in").addEventListener("submit", async (submission) => {
  submission.preventDefault();
  const form = submission.target;
  const button = form.querySelector("button");
  button.disabled = true;
  by("refusal").textContent = "";
  shop = form.tenant.value.trim();
  try {
    await client.logIn({ tenant: shop, email: form.email.value.trim(), password: form.password.value });
    form.password.value = "";
    await enter();
  } catch (error) {
    by("refusal").textContent = told(error);
    form.password.focus();
  } finally {
    button.disabled = false;
  }
});

by("log-out").addEventListener("click", () => {
  leave("");
  client.logOut().catch(() => {}); // the session ends here in any case
});

function askToLogIn(why) {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const form = by("log-in");
  form.tenant.value ||= wanted.get("tenant") ?? "";
  form.email.value ||= wanted.get("email") ?? "";
  by("refusal").textContent = why;
  form.hidden = false;
  [form.tenant, form.email, form.password].find((field) => field.value === "")?.focus();
}

function leave(why) {
  feed?.close();
  feed = null;
  session = null;
  sales.clear();
  for (const id of ["sales", "connection", "today"]) by(id).hidden = true;
  by("tenant").textContent = "";
  by("history").textContent = "";
  lost = 0;
  askToLogIn(why);
}

async function enter() {
  by("log-in").hidden = true;
  by("sales").hidden = by("connection").hidden = false;
  sums = true;
  showState("connecting");
  try {
    const named = await client.get("/api/v1/tenant/branding", { query: { slug: shop } });
    by("tenant").textContent = named.data.data.name;
    follow(await fetched());
  } catch (error) {
    if (error instanceof Problem && error.status === 401) return;
    showProblem(`${told(error)} Reload the page to try again.`);
    showState("offline");
  }
}

// Following

/** What is there. Gives the position from which to go on. */
async function fetched() {
  const { data, position } = await client.get("/api/v1/transactions", { query: { limit: ROWS } });
  sales.clear();
  for (const sale of data.data) sales.put(sale, false);
  by("list").ariaBusy = "false";
  by("empty").hidden = sales.size > 0;
  showProblem("");
  sum();
  return position;
}

function follow(from) {
  feed = client.feed({ from, refetch: fetched, onEvent: hear, onState: showState, onEnd: ended, onError: console.error });
}

function hear({ name, data, position }) {
  if (name === "new_transaction" || name === "transaction_refunded") {
    if (name === "new_transaction" && !sales.has(data.id)) fresh.push(data);
    sales.put(data, true);
    by("empty").hidden = true;
    announce();
  }
  if (name !== "product_listed") {
    client.position = position; // the sums shall show at least this
    sum();
  }
}

function ended({ reason, problem }) {
  if (problem !== null && problem.status !== 401) {
    showProblem(told(problem));
    showState("offline");
  } else {
    leave(ENDED[reason] ?? "Your session has ended. Log in again.");
  }
}

by("retry").addEventListener("click", again);
addEventListener("online", () => { if (by("state").dataset.state === "waiting") again(); });

function again() {
  if (feed === null) return;
  const from = feed.position;
  feed.close();
  follow(from);
}

function showState(state) {
  if (state === "ended" || (feed === null && state !== "connecting" && state !== "offline")) return;
  const shown = by("state").dataset.state;
  if (shown === "open" && state === "waiting") {
    lost += 1;
    by("history").textContent = `Connection lost at ${now.format()}`;
  }
  if (state === "open" && lost > 0 && shown !== "open") {
    by("history").textContent = `Reconnected at ${now.format()}, nothing missed`;
  }
  if (state === "connecting" && shown === "waiting") return; // an attempt: nothing has changed yet
  by("state").dataset.state = state;
  by("state").textContent = STATES[state];
  by("retry").hidden = state !== "waiting";
}

function showProblem(text) {
  by("problem").textContent = text;
  by("problem").hidden = text === "";
}

function told(error) {
  return error instanceof Problem ? error.message : "The server cannot be reached.";
}

// Sums of today, which the API counts in days of UTC

function sum() {
  if (summed || !sums) return;
  summed = true;
  setTimeout(async () => {
    summed = false;
    const day = new Date().toISOString().slice(0, 10);
    try {
      const { data } = await client.get("/api/v1/transactions/summary", { query: { from: day, to: day } });
      const most = data.data.reduce((one, other) => (one && one.count >= other.count ? one : other), null);
      by("count").textContent = (most?.count ?? 0).toLocaleString();
      for (const each of ["gross", "refunded", "net"]) by(each).textContent = most ? money(most[each], most.currency) : "–";
      by("today").hidden = false;
    } catch (error) {
      if (error instanceof Problem && error.status === 403) sums = false;
    }
  }, by("today").hidden ? 0 : SUMMED_EACH_MS);
}

// For readers of screens

let announcing = false;

function announce() {
  if (announcing || fresh.length === 0) return;
  announcing = true;
  const newest = fresh.at(-1);
  by("arrivals").textContent = `${counted(fresh.length, "new sale", "new sales")}, ${money(newest.amount, newest.currency)} at ${when(newest.occurred_at)}`;
  fresh = [];
  setTimeout(() => { announcing = false; announce(); }, ANNOUNCED_EACH_MS);
}

if (session) enter();
else askToLogIn("");
