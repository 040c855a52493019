/** Requests to the server: JSON, pictures of which only the newest is shown, lost connections. */

const client = Array.from(crypto.getRandomValues(new Uint32Array(3)), (n) => n.toString(36)).join("");
let sequence = 0;

/** The server refused a request; the message is its reason. */
export class Refused extends Error {}

/** The server does not answer or is busy; the request can be sent again. */
export class Lost extends Error {}

/**
 * Events: "lost" (detail: the server's reason, if it gave one), "found" (detail: the state) and
 * "notes" (detail: the mark of the notes on the server).
 */
export const events = new EventTarget();
const notify = (name, detail) => events.dispatchEvent(new CustomEvent(name, { detail }));

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

let finding = null;

/** Waits until the server answers again; all waiting requests share one poll. */
function findAgain() {
  finding ??= (async () => {
    notify("lost");
    for (;;) {
      await pause(700);
      try {
        const response = await fetch("api/state");
        if (response.ok) {
          notify("found", await response.json());
          finding = null;
          return;
        }
        if (response.status === 401) notify("lost", (await response.json()).error); // a new token
      } catch {
        // Not yet.
      }
    }
  })();
  return finding;
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Lost("no answer");
  }
  if (response.status === 503) throw new Lost("busy");
  if (response.ok) return response;
  let reason = `the viewer answered with HTTP status ${response.status}`;
  try {
    reason = (await response.json()).error;
  } catch {
    // Not the viewer's JSON: a proxy reports that the viewer does not answer.
    if (response.status >= 500) throw new Lost("no answer");
  }
  throw new Refused(reason);
}

/** Sends a request until the server answers it. */
async function insist(path, options) {
  for (;;) {
    try {
      return await send(path, options);
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
      await findAgain();
    }
  }
}

const asJson = (data) => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(data),
});

export const readState = async () => (await insist("api/state")).json();
export const readNotes = async () => (await insist("api/notes")).json();
export const changeNote = async (index, change) => (await insist("api/notes", asJson({ index, change }))).json();
export const makeExport = async (kind, view) => (await send("api/export", asJson({ kind, view }))).blob();
export const addLatents = async (file) =>
  (
    await send(`api/latents?file=${encodeURIComponent(file.name)}`, {
      method: "POST",
      headers: { "content-type": "application/octet-stream" },
      body: file,
    })
  ).json();

const asBitmap = async (response) => createImageBitmap(await response.blob());

/**
 * A place on the page that shows one answer at a time: a picture, or what `read` makes of it.
 *
 * At most `most` requests are under way. Of the views wanted meanwhile only the last is requested.
 * An answer that arrives after a newer one is dropped.
 */
export class Place {
  constructor(name, show, { most = 2, small = false, patient = false, path = "api/image", read = asBitmap, onRefused = () => {} } = {}) {
    Object.assign(this, { name, show, most, small, patient, path, read, onRefused });
    this.under = 0;
    this.shown = 0;
    this.wanted = null;
    this.asked = null; // the view wanted last, as JSON
    this.waiters = [];
  }

  /** Requests a view like `want`; resolves when no request is under way or waiting. */
  settle(view) {
    this.want(view);
    if (this.under === 0) return Promise.resolve();
    return new Promise((resolve) => this.waiters.push(resolve));
  }

  /** Requests a view, unless it is the view wanted last. */
  want(view) {
    const key = JSON.stringify(view);
    if (key === this.asked) return;
    this.asked = key;
    this.wanted = view;
    this.next();
  }

  next() {
    if (this.wanted === null || this.under >= this.most) return;
    const view = this.wanted;
    this.wanted = null;
    this.under += 1;
    this.request(view).finally(() => {
      this.under -= 1;
      this.next();
      if (this.under === 0) for (const resolve of this.waiters.splice(0)) resolve();
    });
  }

  async request(view) {
    sequence += 1;
    const mine = sequence;
    const { small, patient } = this;
    try {
      const body = { client, sequence: mine, place: this.name, view, small, patient };
      const response = await send(this.path, asJson(body));
      notify("notes", response.headers.get("x-notes"));
      if (response.status === 204) return; // a newer request replaced this one
      const answer = await this.read(response);
      if (mine <= this.shown) return;
      this.shown = mine;
      this.show(answer, view, mine);
    } catch (error) {
      if (error instanceof Refused) {
        this.onRefused(error.message);
        return;
      }
      if (!(error instanceof Lost)) throw error;
      await (error.message === "busy" ? pause(500) : findAgain());
      if (this.wanted === null && JSON.stringify(view) === this.asked) this.wanted = view;
    }
  }
}
