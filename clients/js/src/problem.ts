/** Problem details (RFC 9457), as every refusal of the API is told. */
export interface ProblemDetails {
  type: string;
  title: string;
  status: number;
  detail: string;
  errors: Record<string, string[] | string>;
}

/** The API refused. `details.errors` says which fields are to blame. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly details: ProblemDetails | null,
    /** Seconds after which to ask again, if the answer said so. */
    readonly retryAfterS: number | null = null,
  ) {
    super(details?.detail ?? `The server answered ${status} without saying why.`);
    this.name = "Problem";
  }

  static async of(response: Response): Promise<Problem> {
    const after = Number(response.headers.get("retry-after") ?? NaN);
    const details = (await response.json().catch(() => null)) as ProblemDetails | null;
    return new Problem(response.status, details, Number.isFinite(after) ? after : null);
  }
}
