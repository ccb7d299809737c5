import { Problem } from "./problem.js";
const RETRY_MS = 1_000;
const RETRY_MS_MAX = 30_000;
/** The server tells something each 15 s: after three times nothing the connection is dead. */
const SILENT_MS_MAX = 45_000;
const BLOCK_CHARACTERS_MAX = 1024 * 1024;
/**
 * Server-sent events by fetch, with the access token in a header: comes back by itself with back-off, from after the last event that
 * was handled, so that none is missed and none comes twice.
 */
export class Feed {
    position;
    /** Settles when nothing comes any more. */
    ended;
    #client;
    #options;
    #closed = false;
    #connection = null;
    #wake = () => { };
    #retryMs = RETRY_MS;
    #failures = 0;
    constructor(client, options) {
        this.#client = client;
        this.#options = options;
        this.position = options.from ?? null;
        this.ended = this.#run();
    }
    close() {
        this.#closed = true;
        this.#connection?.abort();
        this.#wake();
    }
    async #run() {
        while (!this.#closed) {
            this.#options.onState?.("connecting");
            try {
                await this.#listen();
            }
            catch (error) {
                await this.#recover(error);
            }
            if (!this.#closed)
                await this.#wait();
        }
        this.#options.onState?.("ended");
    }
    async #listen() {
        const connection = (this.#connection = new AbortController());
        const token = await this.#client.accessToken();
        const headers = new Headers({ Accept: "text/event-stream" });
        if (token !== null)
            headers.set("Authorization", `Bearer ${token}`);
        if (this.position !== null)
            headers.set("Last-Event-ID", this.position);
        const topics = this.#options.topics;
        const query = topics === undefined ? "" : `?${new URLSearchParams({ topics: topics.join(",") })}`;
        let watchdog = setTimeout(() => connection.abort(), SILENT_MS_MAX);
        try {
            const url = `${this.#client.baseUrl}/api/v1/feed${query}`;
            const response = await this.#client.fetch(url, { headers, cache: "no-store", signal: connection.signal });
            if (!response.ok || response.body === null)
                throw await Problem.of(response);
            this.#options.onState?.("open");
            const blocks = new Blocks();
            const reader = response.body.getReader();
            const decoder = new TextDecoder();
            for (let piece = await reader.read(); !piece.done && !this.#closed; piece = await reader.read()) {
                clearTimeout(watchdog);
                watchdog = setTimeout(() => connection.abort(), SILENT_MS_MAX);
                for (const block of blocks.take(decoder.decode(piece.value, { stream: true })))
                    await this.#handle(block);
            }
        }
        finally {
            clearTimeout(watchdog);
            connection.abort();
        }
    }
    async #handle(block) {
        if (this.#closed)
            return;
        if (block.retryMs !== null)
            this.#retryMs = block.retryMs;
        this.#failures = 0;
        if (block.name === "session_ended") {
            const { reason } = JSON.parse(block.data ?? "{}");
            if (reason === "token_expired")
                await this.#client.refresh();
            else
                this.#end({ reason: reason, problem: null });
            return;
        }
        if (block.data !== null) {
            const event = { name: block.name ?? "message", data: JSON.parse(block.data), position: block.id };
            await this.#options.onEvent(event);
        }
        if (block.id !== null)
            this.position = block.id;
    }
    /** After a failure: whatever has to be done before it comes back. */
    async #recover(error) {
        if (this.#closed)
            return;
        try {
            if (!(error instanceof Problem)) {
                this.#failures += 1;
                if (error instanceof Error && error.name !== "AbortError" && !(error instanceof TypeError))
                    this.#options.onError?.(error);
            }
            else if (error.status === 401 && this.#client.session !== null) {
                await this.#client.refresh();
            }
            else if (error.status === 410 && this.#options.refetch !== undefined) {
                this.position = await this.#options.refetch();
            }
            else if (error.status >= 500 || error.status === 429) {
                this.#failures += 1;
            }
            else {
                this.#end({ reason: "refused", problem: error });
            }
        }
        catch (again) {
            this.#failures += 1;
            if (again instanceof Problem && again.status === 401)
                this.#end({ reason: "refused", problem: again });
            else
                this.#options.onError?.(again);
        }
    }
    #end(end) {
        this.#closed = true;
        this.#options.onEnd?.(end);
    }
    /** At least half of what the server said, twice as long after each failure, and by chance: not all clients at once. */
    async #wait() {
        this.#options.onState?.("waiting");
        const most = Math.min(RETRY_MS_MAX, this.#retryMs * 2 ** Math.min(this.#failures, 10));
        await new Promise((resolve) => {
            const timer = setTimeout(resolve, most * (0.5 + Math.random() / 2));
            this.#wake = () => {
                clearTimeout(timer);
                resolve();
            };
        });
    }
}
/** Server-sent events from pieces of text that may end anywhere (HTML Living Standard, 9.2.6; our server ends lines by LF). */
class Blocks {
    #text = "";
    /** Those that are whole by now. */
    take(piece) {
        const parts = (this.#text + piece).split("\n\n");
        this.#text = parts.pop() ?? "";
        if (this.#text.length > BLOCK_CHARACTERS_MAX)
            throw new Error("A message of the feed is longer than 1 MiB.");
        return parts.map(read);
    }
}
function read(text) {
    const block = { id: null, name: null, data: null, retryMs: null };
    for (const line of text.split("\n")) {
        const colon = line.indexOf(":");
        const field = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "id")
            block.id = value;
        else if (field === "event")
            block.name = value;
        else if (field === "data")
            block.data = block.data === null ? value : `${block.data}\n${value}`;
        else if (field === "retry" && /^\d+$/.test(value))
            block.retryMs = Number(value);
    }
    return block;
}
