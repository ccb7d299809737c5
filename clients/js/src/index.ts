export { Client, type Answer, type ClientOptions, type Session } from "./client.js";
export { Feed, type FeedEnd, type FeedEvent, type FeedOptions } from "./feed.js";
export { Problem, type ProblemDetails } from "./problem.js";
export type { Body, Good, Method, PathsOf, RequestOptions } from "./typing.js";
export type { components, paths } from "./schema.js";
