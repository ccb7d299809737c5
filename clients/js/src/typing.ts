/** What the OpenAPI document says of requests and answers, looked up by method and path. */
import type { paths } from "./schema.js";

export type Method = "get" | "post" | "put" | "patch" | "delete";

type Operation<P extends keyof paths, M extends Method> = M extends keyof paths[P] ? paths[P][M] : never;

/** The paths that know a method. */
export type PathsOf<M extends Method> = {
  [P in keyof paths]: Operation<P, M> extends { responses: unknown } ? P : never;
}[keyof paths];

type Json<T> = T extends { content: { "application/json": infer B } } ? B : undefined;
type Responses<O> = O extends { responses: infer R } ? R : never;
type Parameters<O, In extends string> = O extends { parameters: { [I in In]?: infer Q } } ? NonNullable<Q> : never;

/** The body of a good answer; undefined for 204. */
export type Good<P extends keyof paths, M extends Method> =
  Responses<Operation<P, M>> extends infer R ? { [S in keyof R & (200 | 201 | 202 | 204)]: Json<R[S]> }[keyof R & (200 | 201 | 202 | 204)] : never;

/** The body of a request. */
export type Body<P extends keyof paths, M extends Method> =
  Operation<P, M> extends { requestBody?: infer B } ? Json<NonNullable<B>> : undefined;

export interface RequestOptions<P extends keyof paths, M extends Method> {
  path?: Parameters<Operation<P, M>, "path">;
  query?: Parameters<Operation<P, M>, "query">;
  body?: Body<P, M>;
  /** A repeat with the same key is the same command. Without it each call has a new one. */
  idempotencyKey?: string;
  /** The ETag that a change was decided upon: 412 if it is no longer the version. */
  ifMatch?: string;
  signal?: AbortSignal;
}
