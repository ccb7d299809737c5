// The list of sales: rows in the order in which they were recorded, the newest first, each sale once.

const ROWS_MAX = 60;
const NAMES_AT_ONCE = 4;
const STATUS = { recorded: "Recorded", partly_refunded: "Partly refunded", refunded: "Refunded" };

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const calendar = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const units = new Intl.PluralRules(undefined);

/** `amount` is the API's decimal string. */
export function money(amount, currency) {
  return new Intl.NumberFormat(undefined, { style: "currency", currency }).format(amount);
}

export function when(instant) {
  const time = new Date(instant);
  return (time.toDateString() === new Date().toDateString() ? clock : calendar).format(time);
}

export function counted(count, one, many) {
  return `${count.toLocaleString()} ${units.select(count) === "one" ? one : many}`;
}

export class Sales {
  #list;
  #names;
  #rows = new Map(); // by the sale's id

  /** `nameOf` gives a promise of a product's name, by its id. */
  constructor(list, nameOf) {
    this.#list = list;
    this.#names = new Names(nameOf);
  }

  get size() {
    return this.#rows.size;
  }

  has(id) {
    return this.#rows.has(id);
  }

  clear() {
    this.#rows.clear();
    this.#list.replaceChildren();
  }

  /** A sale as it is now, in place of what is known of it. `arrived`: it is news. */
  put(sale, arrived) {
    const known = this.#rows.get(sale.id);
    const row = this.#row(sale);
    if (arrived) row.classList.add(known ? "changed" : "new");
    this.#rows.set(sale.id, row);
    if (known) {
      known.replaceWith(row);
      return;
    }
    // Ids begin with their time: a smaller one is older.
    this.#list.insertBefore(row, [...this.#list.children].find((each) => each.dataset.id < sale.id) ?? null);
    while (this.#list.children.length > ROWS_MAX) {
      this.#rows.delete(this.#list.lastElementChild.dataset.id);
      this.#list.lastElementChild.remove();
    }
  }

  #row(sale) {
    const row = document.createElement("li");
    row.dataset.id = sale.id;
    const [first] = sale.lines;
    const what = add(row, "p", "what", first.sku);
    this.#names.get(first.product_id, (name) => { what.textContent = name; what.title = first.sku; });
    const sold = sale.lines.reduce((sum, line) => sum + line.quantity, 0);
    const of = sale.lines.length > 1 ? ` of ${sale.lines.length} products` : "";
    const brought = sale.affiliate_id === null ? "" : " · by an affiliate";
    add(row, "p", "about", `${counted(sold, "piece", "pieces")}${of}${brought}`);
    const amount = add(row, "p", "amount", money(sale.amount, sale.currency));
    if (sale.status !== "recorded") add(amount, "span", "back", `−${money(sale.refunded, sale.currency)}`);
    add(row, "p", `status ${sale.status}`, STATUS[sale.status] ?? sale.status);
    const time = add(row, "time", "when", when(sale.occurred_at));
    time.dateTime = sale.occurred_at;
    return row;
  }
}

function add(to, kind, className, text) {
  const made = document.createElement(kind);
  made.className = className;
  made.textContent = text;
  to.append(made);
  return made;
}

/** Names of products, each asked for once, a few at a time. */
class Names {
  #nameOf;
  #known = new Map();
  #waiting = [];
  #asking = 0;

  constructor(nameOf) {
    this.#nameOf = nameOf;
  }

  get(id, told) {
    if (this.#known.has(id)) {
      this.#known.get(id).then((name) => name && told(name));
      return;
    }
    const promise = new Promise((resolve) => this.#waiting.push({ id, resolve }));
    this.#known.set(id, promise);
    promise.then((name) => name && told(name));
    this.#ask();
  }

  #ask() {
    while (this.#asking < NAMES_AT_ONCE && this.#waiting.length > 0) {
      const { id, resolve } = this.#waiting.shift();
      this.#asking += 1;
      this.#nameOf(id).catch(() => null).then((name) => {
        this.#asking -= 1;
        if (name === null) this.#known.delete(id); // asked for again with its next sale
        resolve(name);
        this.#ask();
      });
    }
  }
}
