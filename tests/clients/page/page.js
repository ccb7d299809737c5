// A page as docs/realtime.md tells people to write one, with the npm package `phoenix`. ?api= is where the API is.
import { Socket } from "/phoenix.mjs";

const api = new URLSearchParams(location.search).get("api");
const status = document.querySelector("[role=status]");
const [products, sales] = document.querySelectorAll("ul");

document.querySelector("form").addEventListener("submit", async (submission) => {
  submission.preventDefault();
  const form = new FormData(submission.target);
  const answer = await fetch(`${api}/api/v1/auth/login`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ email: form.get("email"), password: form.get("password"), tenant: "shop" }),
  });
  const { access_token: token, user } = (await answer.json()).data;
  const socket = new Socket(`${api.replace("http", "ws")}/socket`, { authToken: token });
  socket.onOpen(() => { status.textContent = "open"; });
  socket.onClose(() => { status.textContent = "closed"; });
  socket.connect();
  follow(socket, `tenant:${user.tenant_id}`, "product_listed", ({ id, sku, price }) => show(products, id, `${sku} ${price}`));
  follow(socket, `transaction:${user.id}`, "new_transaction", ({ id, amount, currency }) => show(sales, id, `${amount} ${currency}`));
});

function follow(socket, topic, event, told) {
  let last;
  const channel = socket.channel(topic, () => (last ? { from: last } : {}));
  channel.onMessage = (_, payload) => { if (payload && payload.position) last = payload.position; return payload; };
  channel.on(event, told);
  channel.join().receive("ok", ({ position }) => { last ??= position; document.body.dataset[event] = "joined"; });
}

function show(list, id, text) {
  const item = document.createElement("li");
  item.id = id;
  item.textContent = text;
  list.append(item);
}
