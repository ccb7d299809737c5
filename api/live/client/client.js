import { Feed } from "./feed.js";
import { Problem } from "./problem.js";
const REFRESH_BEFORE_MS = 30_000;
const TRIES_MAX = 4;
const RETRY_MS = 250;
/** Of a command, 409 is only tried again if it says when: the same one is being done. */
const RETRIED = new Set([409, 502, 503, 504]);
/**
 * Requests with types, in order: whatever a command did is in the answers to later queries. Access tokens are refreshed in time,
 * once however many ask; what failed for now is asked again, commands under the same idempotency key.
 */
export class Client {
    baseUrl;
    fetch;
    /** Of the last command that was answered. Later queries show at least this. */
    position = null;
    #session;
    #refreshing = null;
    #onSession;
    #storedSession;
    constructor(options) {
        this.baseUrl = options.baseUrl.replace(/\/+$/, "");
        this.fetch = options.fetch ?? ((...given) => globalThis.fetch(...given));
        this.#session = options.session ?? null;
        this.#onSession = options.onSession ?? (() => { });
        this.#storedSession = options.storedSession ?? null;
    }
    get session() {
        return this.#session;
    }
    /** Throws Problem: 401 for a wrong address or password. */
    async logIn(credentials) {
        const response = await this.fetch(`${this.baseUrl}/api/v1/auth/login`, json("POST", credentials));
        if (!response.ok)
            throw await Problem.of(response);
        this.position = null; // of whoever was logged in before
        this.#begin((await response.json()));
    }
    async logOut() {
        try {
            await this.request("post", "/api/v1/auth/logout");
        }
        finally {
            this.#end();
        }
    }
    get(path, options = {}) {
        return this.request("get", path, options);
    }
    post(path, options = {}) {
        return this.request("post", path, options);
    }
    put(path, options = {}) {
        return this.request("put", path, options);
    }
    patch(path, options = {}) {
        return this.request("patch", path, options);
    }
    delete(path, options = {}) {
        return this.request("delete", path, options);
    }
    /** Throws Problem, or what fetch throws when the server could not be reached. */
    async request(method, path, options = {}) {
        const url = this.baseUrl + filled(path, options.path ?? {}) + search(options.query ?? {});
        const init = json(method.toUpperCase(), options.body);
        if (options.signal)
            init.signal = options.signal;
        if (options.ifMatch !== undefined)
            init.headers.set("If-Match", options.ifMatch);
        if (method === "get") {
            if (this.position !== null)
                init.headers.set("X-Position", this.position);
        }
        else {
            init.headers.set("Idempotency-Key", options.idempotencyKey ?? crypto.randomUUID());
        }
        const response = await this.#insist(url, init);
        const position = response.headers.get("x-position");
        if (method !== "get" && position !== null)
            this.position = position;
        const data = response.status === 204 ? undefined : await response.json();
        return { data: data, status: response.status, etag: response.headers.get("etag"), position };
    }
    /** What happens from now on, or from after a position, until `close`. */
    feed(options) {
        return new Feed(this, options);
    }
    /** One that is good for half a minute at least. Throws Problem when the session has ended. */
    async accessToken() {
        if (this.#session !== null && this.#session.expiresAt - Date.now() < REFRESH_BEFORE_MS)
            await this.refresh();
        return this.#session?.accessToken ?? null;
    }
    /** Get new tokens; whoever asks meanwhile waits for the same ones. Throws Problem. */
    refresh() {
        this.#refreshing ??= this.#refresh().finally(() => {
            this.#refreshing = null;
        });
        return this.#refreshing;
    }
    async #refresh() {
        const stored = this.#storedSession;
        if (stored === null)
            return this.#exchange();
        const inTurn = async () => {
            const newest = stored();
            if (newest !== null && newest.refreshToken !== this.#session?.refreshToken) {
                this.#session = newest;
                if (newest.expiresAt - Date.now() >= REFRESH_BEFORE_MS)
                    return;
            }
            await this.#exchange();
        };
        const locks = globalThis.navigator?.locks; // not in Node, nor on pages that came over plain http
        return locks === undefined ? inTurn() : locks.request(`bitnexus refresh ${this.baseUrl}`, inTurn);
    }
    async #exchange() {
        const body = { refresh_token: this.#session?.refreshToken ?? "" };
        const response = await this.fetch(`${this.baseUrl}/api/v1/auth/refresh`, json("POST", body));
        if (response.ok) {
            this.#begin((await response.json()));
            return;
        }
        if (response.status === 401)
            this.#end();
        throw await Problem.of(response);
    }
    async #insist(url, init) {
        let refreshed = false;
        for (let tried = 1;; tried++) {
            const token = await this.accessToken();
            if (token !== null)
                init.headers.set("Authorization", `Bearer ${token}`);
            let response;
            try {
                response = await this.fetch(url, init);
            }
            catch (error) {
                if (tried >= TRIES_MAX || init.signal?.aborted)
                    throw error;
                await slept(RETRY_MS * 2 ** tried);
                continue;
            }
            if (response.ok)
                return response;
            const problem = await Problem.of(response);
            if (response.status === 401 && token !== null && !refreshed) {
                refreshed = true;
                if (this.#session?.accessToken === token)
                    await this.refresh();
                continue;
            }
            const again = RETRIED.has(response.status) && (response.status !== 409 || problem.retryAfterS !== null);
            if (!again || tried >= TRIES_MAX)
                throw problem;
            await slept(problem.retryAfterS === null ? RETRY_MS * 2 ** tried : problem.retryAfterS * 1000);
        }
    }
    #begin(body) {
        const { access_token, refresh_token, expires_in } = body.data;
        this.#session = { accessToken: access_token, refreshToken: refresh_token, expiresAt: Date.now() + expires_in * 1000 };
        this.#onSession(this.#session);
    }
    #end() {
        this.position = null; // nobody else's tenant knows it
        this.#session = null;
        this.#onSession(null);
    }
}
function json(method, body) {
    const headers = new Headers({ Accept: "application/json" });
    if (body === undefined)
        return { method, headers };
    headers.set("Content-Type", "application/json");
    return { method, headers, body: JSON.stringify(body) };
}
function filled(path, given) {
    return path.replace(/\{(\w+)\}/g, (_, name) => {
        const value = given[name];
        if (value === undefined)
            throw new TypeError(`The path ${path} needs a ${name}. Give it in options.path.`);
        return encodeURIComponent(String(value));
    });
}
function search(query) {
    const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
    return given.length === 0 ? "" : `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`;
}
function slept(ms) {
    return new Promise((resolve) => setTimeout(resolve, ms));
}
