import { Feed, type FeedOptions } from "./feed.js";
import { Problem } from "./problem.js";
import type { Good, Method, PathsOf, RequestOptions } from "./typing.js";

const REFRESH_BEFORE_MS = 30_000;
const TRIES_MAX = 4;
const RETRY_MS = 250;
/** Of a command, 409 is only tried again if it says when: the same one is being done. */
const RETRIED = new Set([409, 502, 503, 504]);

/** To be kept by whoever wants to stay logged in. The refresh token is good once. */
export interface Session {
  accessToken: string;
  refreshToken: string;
  /** Milliseconds since 1970. */
  expiresAt: number;
}

export interface ClientOptions {
  /** Where the API is, such as `https://api.example`: without `/api/v1`. */
  baseUrl: string;
  session?: Session | null;
  /** Is told each new session, and null when one has ended. */
  onSession?: (session: Session | null) => void;
  /**
   * What `onSession` stored last, in this tab or in another one. With it all tabs take turns in refreshing (Web Locks), and who comes
   * second takes what the first one got. Without it no two clients may have the same session: the second refresh would end it.
   */
  storedSession?: () => Session | null;
  fetch?: typeof fetch;
}

export interface Answer<T> {
  data: T;
  status: number;
  etag: string | null;
  /** What the answer shows, or where the command's outcome stands: a place from which a feed goes on. */
  position: string | null;
}

interface SessionBody {
  data: { access_token: string; refresh_token: string; expires_in: number };
}

/**
 * Requests with types, in order: whatever a command did is in the answers to later queries. Access tokens are refreshed in time,
 * once however many ask; what failed for now is asked again, commands under the same idempotency key.
 */
export class Client {
  readonly baseUrl: string;
  readonly fetch: typeof fetch;
  /** Of the last command that was answered. Later queries show at least this. */
  position: string | null = null;
  #session: Session | null;
  #refreshing: Promise<void> | null = null;
  readonly #onSession: (session: Session | null) => void;
  readonly #storedSession: (() => Session | null) | null;

  constructor(options: ClientOptions) {
    this.baseUrl = options.baseUrl.replace(/\/+$/, "");
    this.fetch = options.fetch ?? ((...given) => globalThis.fetch(...given));
    this.#session = options.session ?? null;
    this.#onSession = options.onSession ?? (() => {});
    this.#storedSession = options.storedSession ?? null;
  }

  get session(): Session | null {
    return this.#session;
  }

  /** Throws Problem: 401 for a wrong address or password. */
  async logIn(credentials: { email: string; password: string; tenant?: string }): Promise<void> {
    const response = await this.fetch(`${this.baseUrl}/api/v1/auth/login`, json("POST", credentials));
    if (!response.ok) throw await Problem.of(response);
    this.position = null; // of whoever was logged in before
    this.#begin((await response.json()) as SessionBody);
  }

  async logOut(): Promise<void> {
    try {
      await this.request("post", "/api/v1/auth/logout");
    } finally {
      this.#end();
    }
  }

  get<P extends PathsOf<"get">>(path: P, options: RequestOptions<P, "get"> = {}): Promise<Answer<Good<P, "get">>> {
    return this.request("get", path, options);
  }

  post<P extends PathsOf<"post">>(path: P, options: RequestOptions<P, "post"> = {}): Promise<Answer<Good<P, "post">>> {
    return this.request("post", path, options);
  }

  put<P extends PathsOf<"put">>(path: P, options: RequestOptions<P, "put"> = {}): Promise<Answer<Good<P, "put">>> {
    return this.request("put", path, options);
  }

  patch<P extends PathsOf<"patch">>(path: P, options: RequestOptions<P, "patch"> = {}): Promise<Answer<Good<P, "patch">>> {
    return this.request("patch", path, options);
  }

  delete<P extends PathsOf<"delete">>(path: P, options: RequestOptions<P, "delete"> = {}): Promise<Answer<Good<P, "delete">>> {
    return this.request("delete", path, options);
  }

  /** Throws Problem, or what fetch throws when the server could not be reached. */
  async request<M extends Method, P extends PathsOf<M>>(
    method: M,
    path: P,
    options: RequestOptions<P, M> = {},
  ): Promise<Answer<Good<P, M>>> {
    const url = this.baseUrl + filled(path, options.path ?? {}) + search(options.query ?? {});
    const init = json(method.toUpperCase(), options.body);
    if (options.signal) init.signal = options.signal;
    if (options.ifMatch !== undefined) init.headers.set("If-Match", options.ifMatch);
    if (method === "get") {
      if (this.position !== null) init.headers.set("X-Position", this.position);
    } else {
      init.headers.set("Idempotency-Key", options.idempotencyKey ?? crypto.randomUUID());
    }
    const response = await this.#insist(url, init);
    const position = response.headers.get("x-position");
    if (method !== "get" && position !== null) this.position = position;
    const data = response.status === 204 ? undefined : await response.json();
    return { data: data as Good<P, M>, status: response.status, etag: response.headers.get("etag"), position };
  }

  /** What happens from now on, or from after a position, until `close`. */
  feed(options: FeedOptions): Feed {
    return new Feed(this, options);
  }

  /** One that is good for half a minute at least. Throws Problem when the session has ended. */
  async accessToken(): Promise<string | null> {
    if (this.#session !== null && this.#session.expiresAt - Date.now() < REFRESH_BEFORE_MS) await this.refresh();
    return this.#session?.accessToken ?? null;
  }

  /** Get new tokens; whoever asks meanwhile waits for the same ones. Throws Problem. */
  refresh(): Promise<void> {
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  async #refresh(): Promise<void> {
    const stored = this.#storedSession;
    if (stored === null) return this.#exchange();
    const inTurn = async (): Promise<void> => {
      const newest = stored();
      if (newest !== null && newest.refreshToken !== this.#session?.refreshToken) {
        this.#session = newest;
        if (newest.expiresAt - Date.now() >= REFRESH_BEFORE_MS) return;
      }
      await this.#exchange();
    };
    const locks = globalThis.navigator?.locks; // not in Node, nor on pages that came over plain http
    return locks === undefined ? inTurn() : locks.request(`bitnexus refresh ${this.baseUrl}`, inTurn);
  }

  async #exchange(): Promise<void> {
    const body = { refresh_token: this.#session?.refreshToken ?? "" };
    const response = await this.fetch(`${this.baseUrl}/api/v1/auth/refresh`, json("POST", body));
    if (response.ok) {
      this.#begin((await response.json()) as SessionBody);
      return;
    }
    if (response.status === 401) this.#end();
    throw await Problem.of(response);
  }

  async #insist(url: string, init: Init): Promise<Response> {
    let refreshed = false;
    for (let tried = 1; ; tried++) {
      const token = await this.accessToken();
      if (token !== null) init.headers.set("Authorization", `Bearer ${token}`);
      let response: Response;
      try {
        response = await this.fetch(url, init);
      } catch (error) {
        if (tried >= TRIES_MAX || init.signal?.aborted) throw error;
        await slept(RETRY_MS * 2 ** tried);
        continue;
      }
      if (response.ok) return response;
      const problem = await Problem.of(response);
      if (response.status === 401 && token !== null && !refreshed) {
        refreshed = true;
        if (this.#session?.accessToken === token) await this.refresh();
        continue;
      }
      const again = RETRIED.has(response.status) && (response.status !== 409 || problem.retryAfterS !== null);
      if (!again || tried >= TRIES_MAX) throw problem;
      await slept(problem.retryAfterS === null ? RETRY_MS * 2 ** tried : problem.retryAfterS * 1000);
    }
  }

  #begin(body: SessionBody): void {
    const { access_token, refresh_token, expires_in } = body.data;
    this.#session = { accessToken: access_token, refreshToken: refresh_token, expiresAt: Date.now() + expires_in * 1000 };
    this.#onSession(this.#session);
  }

  #end(): void {
    this.position = null; // nobody else's tenant knows it
    this.#session = null;
    this.#onSession(null);
  }
}

type Init = RequestInit & { headers: Headers };

function json(method: string, body: unknown): Init {
  const headers = new Headers({ Accept: "application/json" });
  if (body === undefined) return { method, headers };
  headers.set("Content-Type", "application/json");
  return { method, headers, body: JSON.stringify(body) };
}

function filled(path: string, given: object): string {
  return path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = (given as Record<string, unknown>)[name];
    if (value === undefined) throw new TypeError(`The path ${path} needs a ${name}. Give it in options.path.`);
    return encodeURIComponent(String(value));
  });
}

function search(query: object): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  return given.length === 0 ? "" : `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`;
}

function slept(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
