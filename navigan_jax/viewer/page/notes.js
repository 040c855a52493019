/** Notes: names, stars and good ranges. Changes go to the server at once and are kept until saved. */

import * as api from "./api.js";

const EMPTY = Object.freeze({ name: "", starred: false, good_range: null, text: "" });

export class Notes extends EventTarget {
  constructor(store, kept, { digest, suggested, onRefused }) {
    super();
    this.store = store;
    this.onRefused = onRefused;
    this.suggested = suggested; // by direction: the name that gauges propose, or ""
    this.unsaved = []; // changes {index, change} that the server has not saved yet
    this.saving = null;
    this.reading = false;
    this.take(kept);
    // Tabs of this browser notify each other; changes by other programs are read on focus.
    this.channel = new BroadcastChannel(`navigan_jax ${digest}`);
    this.channel.onmessage = () => this.read();
    document.addEventListener("visibilitychange", () => document.hidden || this.read());
    window.addEventListener("focus", () => this.read());
    api.events.addEventListener("notes", ({ detail }) => detail && detail !== this.mark && this.read());
    window.addEventListener("beforeunload", (event) => this.unsaved.length && event.preventDefault());
  }

  /** Takes the notes that the server has; unsaved changes stay on top of them. */
  take({ mark, notes }) {
    this.mark = mark;
    this.kept = notes;
    this.dispatchEvent(new Event("change"));
  }

  get(index) {
    const changes = this.unsaved.filter((each) => each.index === index).map((each) => each.change);
    return Object.assign({}, EMPTY, this.kept[index], ...changes);
  }

  /** Returns the user's name, or else the proposed one with a question mark; may be empty. */
  nameOf(index) {
    const proposed = this.suggested[index];
    return this.get(index).name || (proposed ? `${proposed} ?` : "");
  }

  async read() {
    if (this.reading || this.saving) return;
    this.reading = true;
    try {
      const found = await api.readNotes();
      if (!this.saving && found.mark !== this.mark) this.take(found);
    } catch (error) {
      this.onRefused(error.message);
    } finally {
      this.reading = false;
    }
  }

  /** Changes a direction's note as a step of undo. */
  change(index, change) {
    const old = this.get(index);
    const before = Object.fromEntries(Object.keys(change).map((key) => [key, old[key]]));
    if (JSON.stringify(before) === JSON.stringify(change)) return;
    this.store.push(
      () => this.put(index, before),
      () => this.put(index, change),
    );
    this.put(index, change);
    this.store.notify();
  }

  put(index, change) {
    this.unsaved.push({ index, change });
    this.dispatchEvent(new Event("change"));
    this.saving ??= this.save().finally(() => {
      this.saving = null;
    });
  }

  async save() {
    while (this.unsaved.length) {
      const { index, change } = this.unsaved[0];
      try {
        const kept = await api.changeNote(index, change);
        this.unsaved.shift();
        this.take(kept);
        this.channel.postMessage("changed");
      } catch (error) {
        this.unsaved.shift();
        this.onRefused(error.message);
        this.dispatchEvent(new Event("change"));
      }
    }
  }
}
