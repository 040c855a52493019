/** Assembles the page: state, parts, keys, messages. */

import * as api from "./api.js";
import { makeGauges } from "./gauges.js";
import { makeInputs } from "./inputs.js";
import { Store, readAddress } from "./history.js";
import { Notes } from "./notes.js";
import { makeSamples } from "./samples.js";
import { makeShifts } from "./shifts.js";
import { makeStage } from "./stage.js";
import { makeStrip } from "./strip.js";
import { make, sampleOf, viewOf } from "./views.js";

const $ = (id) => document.getElementById(id);

let toastTimer;
function say(text, seconds = 4) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => ($("toast").hidden = true), 1000 * seconds);
}
const refuse = (reason) => say(reason, 9);

api.events.addEventListener("lost", ({ detail }) => {
  $("banner").textContent =
    detail ??
    "The viewer does not answer. Start it again and leave this page open: it continues where it was and then saves the names and stars that you enter meanwhile.";
  $("banner").hidden = false;
});
api.events.addEventListener("found", () => ($("banner").hidden = true));

const info = await api.readState().catch((error) => {
  $("banner").textContent = error.message;
  $("banner").hidden = false;
  throw error;
});
const { directions, generator, start } = info;
document.body.classList.toggle("has-alpha", generator.alpha);
document.body.style.setProperty("--aspect", generator.aspect);
api.events.addEventListener("found", ({ detail }) => {
  if (detail.directions.digest !== directions.digest) location.reload();
});

$("layer").textContent = directions.layers.join(", ");
document.title = `Directions of ${directions.layers.join(", ")}`;
const { method, metric, architecture, latents, synthesis } = directions.facts;
$("facts").textContent = [
  `${architecture} ${generator.size}`,
  [metric, method].filter(Boolean).join(" "),
  latents ? `${latents} latents` : "",
  synthesis,
  directions.file,
]
  .filter(Boolean)
  .join(" · ");

const store = new Store({
  samples: Array.from({ length: start.samples }, (_, index) => ({ seed: start.seed, index, pinned: false })),
  current: 0,
  shifts: {},
  chosen: 0,
  mix: null,
  combine: false,
  compare: "edited",
  ...readAddress(directions.ends.length, generator.rows),
});
const notes = new Notes(store, info, { digest: directions.digest, suggested: directions.suggested, onRefused: refuse });

/** Selects a direction; unless directions are combined, the shifts of all others are removed. */
function choose(index, { keep = store.state.combine } = {}) {
  const { shifts } = store.state;
  const own = shifts[index] ? { [index]: shifts[index] } : {};
  store.set({ chosen: index, shifts: keep ? shifts : own });
  strip.reveal(index);
}

const stage = makeStage(store, refuse);
const shifts = makeShifts(store, info, notes, choose, refuse);
const strip = makeStrip(store, info, notes, choose);
makeGauges(store, info);
makeInputs(store, info, refuse);
const samples = makeSamples(store, info, { count: start.samples, onRefused: refuse, onDone: say });

$("previous").addEventListener("click", () => strip.step(-1));
$("next").addEventListener("click", () => strip.step(1));
$("undo").addEventListener("click", () => store.undo());
$("redo").addEventListener("click", () => store.redo());
store.addEventListener("change", () => {
  $("undo").disabled = store.done.length === 0;
  $("redo").disabled = store.undone.length === 0;
});

// Export.
for (const { kind, label, file, title } of info.exports) {
  const button = make("button", { type: "button", textContent: label, title });
  $("export").append(button);
  button.addEventListener("click", async () => {
    button.disabled = true;
    button.setAttribute("aria-busy", "true");
    say(`Making ${file}…`, 600);
    try {
      const url = URL.createObjectURL(await api.makeExport(kind, viewOf(store.state, sampleOf(store.state))));
      make("a", { href: url, download: file }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
      say(`Saved as ${file}`);
    } catch (error) {
      refuse(error instanceof api.Lost ? "The viewer does not answer; try again." : error.message);
    } finally {
      button.disabled = false;
      button.removeAttribute("aria-busy");
    }
  });
}

// Keys.
const focus = (id) => {
  $(id).focus();
  $(id).select();
};
const KEYS = {
  "[": () => strip.step(-1),
  "]": () => strip.step(1),
  0: shifts.zero,
  d: stage.turn,
  s: shifts.star,
  n: () => focus("name"),
  g: shifts.stretch,
  c: () => store.set({ combine: !store.state.combine }),
  ",": () => samples.step(-1),
  ".": () => samples.step(1),
  r: samples.renew,
  p: samples.pin,
  "/": () => focus("find"),
  "?": () => $("help").showModal(),
  ArrowLeft: () => shifts.nudge(-1),
  ArrowRight: () => shifts.nudge(1),
};
const TYPED = 'input:not([type="checkbox"], [type="radio"], [type="range"]), select, textarea';
document.addEventListener("keydown", (event) => {
  if ($("help").open) return;
  const isTyped = event.target.matches(TYPED);
  if ((event.ctrlKey || event.metaKey) && !event.altKey && !isTyped) {
    const key = event.key.toLowerCase();
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    if (key === "y" || event.shiftKey) store.redo();
    else store.undo();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || isTyped) return;
  // Inputs and the strip handle the arrow keys themselves.
  if (event.key.startsWith("Arrow") && event.target.closest("input, .cards")) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
$("open-help").addEventListener("click", () => $("help").showModal());
$("close-help").addEventListener("click", () => $("help").close());
$("help").addEventListener("click", (event) => event.target === $("help") && $("help").close());

store.set({});
strip.reveal(store.state.chosen);
