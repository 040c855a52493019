/** The row of samples, each shown edited, and the mixing of latents. */

import { Place, addLatents } from "./api.js";
import { bare, describeSample, make, viewOf } from "./views.js";

const $ = (id) => document.getElementById(id);
const LAST_INDEX = 65535;
const MOST = 64; // samples in the row

export function makeSamples(store, info, { count, onRefused, onDone }) {
  const cells = new Map();
  const keyOf = (sample) => JSON.stringify(bare(sample));

  function makeCell(sample) {
    const canvas = make("canvas", { width: 1, height: 1, "aria-hidden": "true" });
    const button = make("button", { type: "button" }, canvas);
    const key = keyOf(sample);
    button.addEventListener("click", () =>
      store.set({ current: store.state.samples.findIndex((other) => keyOf(other) === key) }),
    );
    const place = new Place(
      `sample ${key}`.slice(0, 60),
      (bitmap) => {
        [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
        canvas.getContext("2d").drawImage(bitmap, 0, 0);
        canvas.dataset.shown = "true";
      },
      { most: 1, small: true, patient: true },
    );
    return { button, place, item: make("li", {}, button) };
  }

  let timer;
  function update() {
    const { samples, current } = store.state;
    const keys = samples.map(keyOf);
    for (const key of cells.keys()) if (!keys.includes(key)) cells.delete(key);
    samples.forEach((sample, i) => {
      if (!cells.has(keys[i])) cells.set(keys[i], makeCell(sample));
      const { button } = cells.get(keys[i]);
      if (i === current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
      button.classList.toggle("is-pinned", sample.pinned);
      button.setAttribute("aria-label", describeSample(sample) + (sample.pinned ? ", pinned" : ""));
      button.title = describeSample(sample);
    });
    const wanted = keys.map((key) => cells.get(key).item);
    const list = $("thumbs");
    if (wanted.length !== list.children.length || wanted.some((item, i) => item !== list.children[i])) {
      list.replaceChildren(...wanted);
    }
    $("pin").setAttribute("aria-pressed", String(samples[current].pinned));
    if (document.activeElement !== $("seed") && samples[current].own === undefined) {
      $("seed").value = samples[current].seed;
    }
    updateMixing();
    clearTimeout(timer);
    timer = setTimeout(refresh, 120);
  }

  /** Requests the thumbnails one after the other, so that the large image comes first. */
  let round = 0;
  async function refresh() {
    round += 1;
    const mine = round;
    for (const sample of store.state.samples) {
      const cell = cells.get(keyOf(sample));
      if (cell) await cell.place.settle(viewOf(store.state, bare(sample)));
      if (mine !== round) return;
    }
  }

  /** Replaces all samples except the pinned ones. */
  function replace(fresh) {
    const { samples } = store.state;
    const pinned = samples.filter((sample) => sample.pinned);
    const known = pinned.map(keyOf);
    const added = fresh.filter((sample) => !known.includes(keyOf(sample)));
    const all = [...pinned, ...added].slice(0, MOST);
    const was = samples[store.state.current];
    const kept = was.pinned ? all.findIndex((sample) => keyOf(sample) === keyOf(was)) : pinned.length;
    store.set({ samples: all, current: Math.min(Math.max(kept, 0), all.length - 1) });
  }

  const drawn = (seed, first) =>
    Array.from({ length: count }, (_, i) => ({ seed, index: Math.min(first + i, LAST_INDEX), pinned: false }));

  function renew() {
    const seed = Number($("seed").value) || 0;
    const indices = store.state.samples.filter((sample) => sample.seed === seed).map((sample) => sample.index);
    const next = Math.max(-1, ...indices) + 1;
    replace(drawn(seed, next + count > LAST_INDEX ? 0 : next));
  }

  function pin() {
    const samples = store.state.samples.map((sample, i) =>
      i === store.state.current ? { ...sample, pinned: !sample.pinned } : sample,
    );
    store.set({ samples });
  }

  $("seed").addEventListener("change", (event) => {
    const seed = Number(event.target.value);
    if (Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32) replace(drawn(seed, 0));
    else onRefused("The seed must be a whole number from 0 to 4294967295.");
  });
  $("new-samples").addEventListener("click", renew);
  $("pin").addEventListener("click", pin);
  $("own").addEventListener("click", () => $("own-file").click());
  $("own-file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (!file) return;
    try {
      const { own, count: found, told } = await addLatents(file);
      const fresh = Array.from({ length: Math.min(found, count) }, (_, index) => ({ own, index, pinned: true }));
      const samples = [...fresh, ...store.state.samples.filter((sample) => !fresh.some((f) => keyOf(f) === keyOf(sample)))];
      store.set({ samples: samples.slice(0, MOST), current: 0 });
      onDone(told);
    } catch (error) {
      onRefused(error.message);
    }
  });

  // Mixing, if the latent has rows.
  const { rows } = info.generator;
  $("mixing").hidden = rows === 0;
  const boxes = Array.from({ length: rows }, (_, row) => {
    const box = make("input", { type: "checkbox", value: row });
    box.setAttribute("aria-label", `Row ${row}`);
    $("mix-rows").append(make("label", { className: "box" }, box, make("span", { textContent: row })));
    return box;
  });

  function updateMixing() {
    if (!rows) return;
    const { samples, mix } = store.state;
    const source = mix ? keyOf(mix.source) : $("mix-source").value;
    const choices = samples.map((sample) => [keyOf(sample), describeSample(sample)]);
    if (mix && !choices.some(([key]) => key === source)) choices.push([source, describeSample(mix.source)]);
    const text = JSON.stringify(choices);
    if ($("mix-source").dataset.choices !== text) {
      $("mix-source").dataset.choices = text;
      $("mix-source").replaceChildren(
        ...choices.map(([value, textContent]) => make("option", { value, textContent })),
      );
    }
    if (choices.some(([key]) => key === source)) $("mix-source").value = source;
    for (const box of boxes) box.checked = mix !== null && mix.rows.includes(Number(box.value));
    if (mix) $("mix-amount").value = mix.amount;
  }

  function mix(settle) {
    const taken = boxes.filter((box) => box.checked).map((box) => Number(box.value));
    const source = JSON.parse($("mix-source").value);
    const amount = Number($("mix-amount").value);
    store.set({ mix: taken.length ? { source, rows: taken, amount } : null }, { settle });
  }
  $("mix-rows").addEventListener("change", () => mix(true));
  $("mix-source").addEventListener("change", () => mix(true));
  $("mix-amount").addEventListener("input", () => mix(false));
  $("mix-amount").addEventListener("change", () => mix(true));

  store.addEventListener("change", update);
  return {
    renew,
    pin,
    step(by) {
      const { samples, current } = store.state;
      store.set({ current: (current + by + samples.length) % samples.length });
    },
  };
}
