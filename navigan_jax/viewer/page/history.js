/** The state of the page: what is shown, undo and redo, and the copy of the state in the address. */

const KEPT = ["samples", "current", "shifts", "chosen", "mix"]; // fields that undo restores
const IN_ADDRESS = [...KEPT, "combine", "compare"];

const pick = (state, keys) => Object.fromEntries(keys.map((key) => [key, state[key]]));

export class Store extends EventTarget {
  constructor(state) {
    super();
    this.state = state;
    this.settled = structuredClone(pick(state, KEPT));
    this.done = [];
    this.undone = [];
  }

  /** Changes the state. A drag settles only at its end, so that one undo reverts the whole drag. */
  set(changes, { settle = true } = {}) {
    Object.assign(this.state, changes);
    if (settle) this.settle();
    this.notify();
  }

  settle() {
    const [before, after] = [this.settled, structuredClone(pick(this.state, KEPT))];
    this.settled = after;
    const without = ({ chosen, ...rest }) => JSON.stringify(rest); // selecting is no step of undo
    if (without(before) !== without(after)) {
      this.push(
        () => this.restore(before),
        () => this.restore(after),
      );
    }
    history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(pick(this.state, IN_ADDRESS)))}`);
  }

  restore(kept) {
    Object.assign(this.state, structuredClone(kept));
    this.settled = structuredClone(kept);
    this.settle();
    this.notify();
  }

  /** Adds a step of undo. */
  push(undo, redo) {
    this.done.push({ undo, redo });
    if (this.done.length > 500) this.done.shift();
    this.undone = [];
  }

  undo() {
    const step = this.done.pop();
    if (!step) return;
    step.undo();
    this.undone.push(step);
    this.notify();
  }

  redo() {
    const step = this.undone.pop();
    if (!step) return;
    step.redo();
    this.done.push(step);
    this.notify();
  }

  notify() {
    this.dispatchEvent(new Event("change"));
  }
}

const isWhole = (value, most) => Number.isInteger(value) && value >= 0 && value <= most;
const isSample = (sample) =>
  sample !== null &&
  typeof sample === "object" &&
  isWhole(sample.index, 65535) &&
  (isWhole(sample.seed, 4294967295) || /^[0-9a-f]{16}$/.test(sample.own));

/** Returns the valid fields of the state in the address; count: directions; rows: of the latent. */
export function readAddress(count, rows) {
  let saved;
  try {
    saved = JSON.parse(decodeURIComponent(location.hash.slice(1)));
  } catch {
    return {};
  }
  if (saved === null || typeof saved !== "object") return {};
  const found = {};
  if (Array.isArray(saved.samples) && saved.samples.length && saved.samples.length <= 64 && saved.samples.every(isSample)) {
    found.samples = saved.samples.map(({ seed, own, index, pinned }) =>
      own === undefined ? { seed, index, pinned: pinned === true } : { own, index, pinned: pinned === true },
    );
    found.current = isWhole(saved.current, found.samples.length - 1) ? saved.current : 0;
  }
  if (isWhole(saved.chosen, count - 1)) found.chosen = saved.chosen;
  if (saved.shifts !== null && typeof saved.shifts === "object") {
    const shifts = Object.entries(saved.shifts).filter(
      ([key, value]) => /^\d+$/.test(key) && isWhole(Number(key), count - 1) && Number.isFinite(value),
    );
    found.shifts = Object.fromEntries(shifts);
  }
  if (saved.mix && isSample(saved.mix.source) && Array.isArray(saved.mix.rows) && Number.isFinite(saved.mix.amount)) {
    const known = saved.mix.rows.filter((row) => isWhole(row, rows - 1));
    const { seed, own, index } = saved.mix.source;
    const source = own === undefined ? { seed, index } : { own, index };
    if (known.length) found.mix = { source, rows: known, amount: saved.mix.amount };
  }
  if (typeof saved.combine === "boolean") found.combine = saved.combine;
  if (["edited", "original", "slide", "difference"].includes(saved.compare)) found.compare = saved.compare;
  return found;
}
