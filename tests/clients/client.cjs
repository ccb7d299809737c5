// The npm client `phoenix` under Node, told by lines of JSON what to do, telling by lines of JSON what happens.
//   node client.cjs PACKAGE URL OPTIONS     PACKAGE is a folder of node_modules; OPTIONS are the Socket's, as JSON
globalThis.self = globalThis; // a browser's name for it: 1.7 has no other
const { Socket, LongPoll, Presence } = require(process.argv[2]);
const WebSocket = require("ws");
const readline = require("node:readline");

const tell = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const { token, longpoll, blocked, ...options } = JSON.parse(process.argv[4] || "{}");
let params = { token };
// As behind a proxy that lets no WebSocket through
class Blocked extends WebSocket {
  constructor(url, ...rest) { super(url.replace(/^ws:..[^/]+/, "ws://127.0.0.1:9"), ...rest); }
}
if (longpoll || options.longPollFallbackMs) globalThis.XMLHttpRequest = require("./xhr.cjs");
const socket = new Socket(process.argv[3], {
  transport: longpoll ? LongPoll : blocked ? Blocked : WebSocket,
  ...options,
  ...(options.authToken ? {} : { params: () => params }),
});
socket.onOpen(() => tell({ on: "open", longpoll: socket.conn instanceof LongPoll }));
socket.onClose((event) => tell({ on: "close", code: event && event.code }));
socket.onError(() => tell({ on: "error" }));

const channels = {};
const commands = {
  connect: () => socket.connect(),
  token: ({ token }) => { params = { token }; },
  // `follow`: each join after the first goes on after the last message that came
  join: ({ topic, payload = {}, follow = false, presence = false }) => {
    let last = payload.from;
    const channel = socket.channel(topic, () => (follow && last ? { ...payload, from: last } : payload));
    channels[topic] = channel;
    channel.onMessage = (event, message) => {
      if (!event.startsWith("chan_reply") && !event.startsWith("phx_")) {
        if (message && message.position) last = message.position;
        tell({ on: "message", topic, event, payload: message });
      }
      return message;
    };
    channel.onError((reason) => tell({ on: "channel_error", topic, reason }));
    channel.onClose(() => tell({ on: "channel_close", topic }));
    if (presence) {
      const present = new Presence(channel);
      present.onSync(() => tell({ on: "presence", topic, keys: present.list((key, { metas }) => [key, metas.length]) }));
    }
    channel
      .join()
      .receive("ok", (response) => {
        if (!last) last = response.position;
        tell({ on: "joined", topic, response });
      })
      .receive("error", (response) => tell({ on: "refused", topic, response }))
      .receive("timeout", () => tell({ on: "timeout", topic }));
  },
  // A page's own code, which defines `listen`: what it sends to join, and all that comes, is told
  run: ({ code, id }) => {
    const push = socket.push.bind(socket);
    socket.push = (frame) => {
      if (frame.event === "phx_join") tell({ on: "joining", payload: frame.payload });
      push(frame);
    };
    socket.onMessage(({ event, payload }) => tell({ on: "frame", event, payload }));
    const fetchWhatIsShown = () => new Promise((resolve) => {
      commands.fetched = ({ position }) => resolve(position);
      tell({ on: "fetching" });
    });
    new Function("socket", "id", "fetchWhatIsShown", `${code}\nlisten();`)(socket, id, fetchWhatIsShown);
  },
  push: ({ topic, event, payload }) => {
    const said = payload && payload.bytes ? Uint8Array.from(payload.bytes).buffer : payload;
    const status = (name) => (response) => tell({ on: "reply", topic, status: name, response });
    channels[topic].push(event, said).receive("ok", status("ok")).receive("error", status("error"));
  },
  leave: ({ topic }) => channels[topic].leave().receive("ok", () => tell({ on: "left", topic })),
  disconnect: () => socket.disconnect(() => tell({ on: "disconnected" })),
};
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  commands[command.do](command);
}).on("close", () => process.exit(0));
