// As much of a browser's XMLHttpRequest as the client's long polling uses.
module.exports = class XMLHttpRequest {
  constructor() { this.headers = {}; this.readyState = 0; this.status = 0; this.responseText = ""; }
  open(method, url) { this.method = method; this.url = url; }
  setRequestHeader(name, value) { this.headers[name] = value; }
  getResponseHeader(name) { return this.answered ? this.answered.get(name) : null; }
  abort() { this.aborter.abort(); }
  send(body) {
    this.aborter = new AbortController();
    const timer = this.timeout && setTimeout(() => { this.timedOut = true; this.aborter.abort(); }, this.timeout);
    fetch(this.url, { method: this.method, headers: this.headers, body: body || undefined, signal: this.aborter.signal })
      .then(async (response) => {
        this.responseText = await response.text();
        this.answered = response.headers;
        this.status = response.status;
        this.readyState = 4;
        if (this.onreadystatechange) this.onreadystatechange();
        if (this.onload) this.onload();
      })
      .catch(() => { if (this.timedOut) { if (this.ontimeout) this.ontimeout(); } else if (this.onerror) this.onerror(); })
      .finally(() => clearTimeout(timer));
  }
};
