/** The API refused. `details.errors` says which fields are to blame. */
export class Problem extends Error {
    status;
    details;
    retryAfterS;
    constructor(status, details, 
    /** Seconds after which to ask again, if the answer said so. */
    retryAfterS = null) {
        super(details?.detail ?? `The server answered ${status} without saying why.`);
        this.status = status;
        this.details = details;
        this.retryAfterS = retryAfterS;
        this.name = "Problem";
    }
    static async of(response) {
        const after = Number(response.headers.get("retry-after") ?? NaN);
        const details = (await response.json().catch(() => null));
        return new Problem(response.status, details, Number.isFinite(after) ? after : null);
    }
}
