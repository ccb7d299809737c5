/** Web Locks as browsers have them, for as long as something is done: one at a time for a name, in the order in which they were asked for. */
export async function withLocks(done) {
  const last = new Map();
  const locks = {
    request(name, callback) {
      const mine = (last.get(name) ?? Promise.resolve()).then(callback);
      last.set(name, mine.catch(() => {}));
      return mine;
    },
  };
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });
  try {
    return await done();
  } finally {
    if (before === undefined) delete globalThis.navigator;
    else Object.defineProperty(globalThis, "navigator", before);
  }
}
