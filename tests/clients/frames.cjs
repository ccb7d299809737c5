// Raw frames by the package `ws`: sends the lines of standard input, tells what comes.
//   node frames.cjs URL [SUBPROTOCOL ...]
const WebSocket = require("ws");
const readline = require("node:readline");

const tell = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const protocols = process.argv.slice(3);
const socket = new WebSocket(process.argv[2], protocols.length ? protocols : undefined);
socket.on("open", () => tell({ on: "open", protocol: socket.protocol, extensions: socket.extensions }));
socket.on("unexpected-response", (request, response) => {
  let body = "";
  response.on("data", (data) => { body += data; });
  response.on("end", () => tell({ on: "answer", status: response.statusCode, body }));
});
socket.on("message", (data, isBinary) => tell(isBinary ? { on: "binary", bytes: [...data] } : { on: "text", text: data.toString() }));
socket.on("pong", () => tell({ on: "pong" }));
socket.on("close", (code) => tell({ on: "close", code }));
socket.on("error", () => {});
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const { text, bytes, fragments, ping, close } = JSON.parse(line);
  if (text !== undefined) socket.send(text);
  if (bytes) socket.send(Uint8Array.from(bytes));
  if (fragments) fragments.forEach((part, n) => socket.send(part, { fin: n === fragments.length - 1 }));
  if (ping) socket.ping();
  if (close) socket.close(close);
}).on("close", () => process.exit(0));
