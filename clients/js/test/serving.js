/** A real `bitnexus serve`, as the environment says: SERVE is its command line, in JSON. */
import { spawn } from "node:child_process";

const PATIENCE_MS = 20_000;

export class Serving {
  #process = null;
  port = 0;

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Comes back when requests are answered; again at the same address. */
  async start() {
    const [program, ...words] = JSON.parse(process.env.SERVE);
    const running = spawn(program, [...words, "serve", "--json", "--port", String(this.port)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#process = running;
    let said = "";
    for await (const piece of running.stdout) {
      said += piece;
      if (said.endsWith("\n}\n")) break;
    }
    this.port = Number(new URL(JSON.parse(said).url).port);
  }

  async stop(signal = "SIGTERM") {
    const running = this.#process;
    this.#process = null;
    if (running === null || running.exitCode !== null) return;
    const gone = new Promise((resolve) => running.once("exit", resolve));
    running.kill(signal);
    await gone;
  }
}

/** Comes back when the condition holds. */
export async function until(condition) {
  const overdue = Date.now() + PATIENCE_MS;
  while (!condition()) {
    if (Date.now() > overdue) throw new Error(`This did not come to be: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
