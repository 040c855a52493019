/** The selected direction with its shift and its note, and the list of all shifted directions. */

import { editable, formatEnds, formatNumber, make } from "./views.js";

const $ = (id) => document.getElementById(id);
const REACH = 3; // a slider goes this many s to either side
const STEPS = 100; // of a slider, per s

/** Returns a shift t in units of s, the s of its side; ends: the shifts −s and +s. */
const unitsOf = (shift, [low, high]) => (shift < 0 ? -shift / low : shift / high);

/** Returns the shift t of a number of units of s. */
const shiftAt = (units, [low, high]) => (units < 0 ? -units * low : units * high);

const inUnits = (shift, ends) => `${formatNumber(unitsOf(shift, ends), { signed: true })} s`;

/** Sets a range input to a shift. Its steps are whole numbers, `STEPS` per s, with 0 in the middle. */
function setSlider(input, shift, ends, good) {
  const inSight = [shift, ...(good ?? [])].map((t) => Math.abs(unitsOf(t, ends)));
  const reach = Math.ceil(Math.max(REACH, ...inSight) * STEPS);
  [input.min, input.max, input.step] = [-reach, reach, 1];
  const steps = Math.round(unitsOf(shift, ends) * STEPS);
  if (Number(input.value) !== steps) input.value = steps;
  const place = (t) => `${(50 + (50 * unitsOf(t, ends) * STEPS) / reach).toFixed(2)}%`;
  const [low, high] = good ?? [0, 0];
  input.style.setProperty("--from", place(Math.min(0, shift)));
  input.style.setProperty("--to", place(Math.max(0, shift)));
  input.style.setProperty("--good-from", place(low));
  input.style.setProperty("--good-to", place(high));
  input.setAttribute("aria-valuetext", shift ? `t ${formatNumber(shift, { signed: true })}` : "no shift");
}

const shiftOf = (input, ends) => shiftAt(Number(input.value) / STEPS, ends);

export function makeShifts(store, info, notes, choose, onRefused) {
  const { ends, measures, plausible } = info.directions;
  const current = (state) => state.shifts[state.chosen] ?? 0;

  /** Shifts a direction; a shift of 0 removes it from the edit. */
  function shift(index, value, settle) {
    const shifts = { ...store.state.shifts };
    const others = Object.keys(shifts).length - (index in shifts ? 1 : 0);
    if (value && others >= info.most_moves) return;
    if (value) shifts[index] = value;
    else delete shifts[index];
    store.set({ shifts }, { settle });
  }

  let unfinished = null; // the direction whose good range has only one bound typed so far

  const nameOf = (index) => notes.nameOf(index) || `Direction ${index}`;

  function update() {
    const { chosen, combine } = store.state;
    const note = notes.get(chosen);
    const value = current(store.state);
    $("chosen-title").textContent = `Direction ${chosen}`;
    $("star").setAttribute("aria-pressed", String(note.starred));
    if (document.activeElement !== $("name")) $("name").value = note.name;
    const proposed = notes.suggested[chosen];
    $("name").placeholder = proposed || "What does it change?";
    $("name-take").hidden = !proposed || note.name !== "";
    $("name-take").textContent = `Use “${proposed}”`;
    setSlider($("shift"), value, ends[chosen], note.good_range);
    const [least, most] = plausible?.[chosen] ?? [-Infinity, Infinity];
    const beyond = value < least || value > most ? ", outside the effective range" : "";
    $("shift-text").textContent = value ? `${inUnits(value, ends[chosen])}${beyond}` : "0";
    if (document.activeElement !== $("shift-number")) $("shift-number").value = editable(value);
    if (unfinished !== chosen) {
      unfinished = null;
      const [low, high] = note.good_range ?? [null, null];
      for (const [id, bound] of [
        ["good-from", low],
        ["good-to", high],
      ]) {
        if (document.activeElement !== $(id)) $(id).value = bound === null ? "" : editable(bound);
      }
    }
    $("good-clear").disabled = note.good_range === null;
    $("good-here").disabled = value === 0;
    const texts = measures.map(({ name, values }) => [name, formatNumber(values[chosen])]);
    texts.push(["s", formatEnds(ends[chosen])]);
    if (plausible) texts.push(["effective range", formatEnds(plausible[chosen])]);
    $("measures").replaceChildren(
      ...texts.map(([name, text]) =>
        make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: text })),
      ),
    );
    $("combine").checked = combine;
    updateMoves();
  }

  // The list. Rows are reused, so that a row that is being dragged stays in place.
  const rows = new Map();

  function makeRow(index) {
    const name = make("button", { type: "button", className: "link" });
    const input = make("input", { type: "range" });
    const number = make("output", {});
    const remove = make("button", { type: "button", className: "icon small", textContent: "×" });
    name.addEventListener("click", () => choose(index, { keep: true }));
    input.addEventListener("input", () => shift(index, shiftOf(input, ends[index]) || 1e-9 * ends[index][1], false));
    input.addEventListener("change", () => shift(index, shiftOf(input, ends[index]), true));
    remove.addEventListener("click", () => {
      shift(index, 0, true);
      $("shift").focus();
    });
    const item = make("li", {}, name, input, number, remove);
    item.dataset.index = index;
    return { item, name, input, number, remove };
  }

  function updateMoves() {
    const { shifts } = store.state;
    const indices = Object.keys(shifts).map(Number);
    for (const index of rows.keys()) if (!(index in shifts)) rows.delete(index);
    for (const index of indices) {
      if (!rows.has(index)) rows.set(index, makeRow(index));
      const { name, input, number, remove } = rows.get(index);
      name.textContent = nameOf(index);
      input.setAttribute("aria-label", `Shift of ${nameOf(index)}`);
      remove.setAttribute("aria-label", `Remove ${nameOf(index)} from the edit`);
      setSlider(input, shifts[index], ends[index], notes.get(index).good_range);
      number.textContent = inUnits(shifts[index], ends[index]);
    }
    const wanted = indices.map((index) => rows.get(index).item);
    const list = $("moves");
    if (wanted.length !== list.children.length || wanted.some((item, i) => item !== list.children[i])) {
      list.replaceChildren(...wanted);
    }
    $("no-moves").hidden = indices.length > 0;
    $("clear").disabled = indices.length === 0 && store.state.mix === null;
  }

  // Shifting.
  $("shift").addEventListener("input", (event) =>
    shift(store.state.chosen, shiftOf(event.target, ends[store.state.chosen]), false),
  );
  $("shift").addEventListener("change", () => store.set({}));
  $("shift-number").addEventListener("change", (event) => {
    const value = Number(event.target.value);
    if (Number.isFinite(value)) shift(store.state.chosen, value, true);
    event.target.value = editable(current(store.state));
  });
  const byScale = (units) => () => shift(store.state.chosen, shiftAt(units, ends[store.state.chosen]), true);
  $("minus-scale").addEventListener("click", byScale(-1));
  $("plus-scale").addEventListener("click", byScale(1));
  $("zero").addEventListener("click", byScale(0));
  $("clear").addEventListener("click", () => store.set({ shifts: {}, mix: null }));
  $("combine").addEventListener("change", (event) => store.set({ combine: event.target.checked }));

  // The note.
  const note = (change) => notes.change(store.state.chosen, change);
  let named = 0; // the direction that was selected when typing of the name began
  $("name").addEventListener("focus", () => {
    named = store.state.chosen;
  });
  $("name").addEventListener("change", (event) => notes.change(named, { name: event.target.value.trim() }));
  $("name-take").addEventListener("click", () => {
    const { chosen } = store.state;
    notes.change(chosen, { name: notes.suggested[chosen] });
    $("name").focus();
  });
  $("name").addEventListener("keydown", (event) => event.key === "Enter" && event.target.blur());
  const star = () => note({ starred: !notes.get(store.state.chosen).starred });
  $("star").addEventListener("click", star);
  $("good-clear").addEventListener("click", () => note({ good_range: null }));

  function stretch() {
    const value = current(store.state);
    if (!value) return;
    const [low, high] = notes.get(store.state.chosen).good_range ?? [0, 0];
    note({ good_range: [Math.min(low, value), Math.max(high, value)] });
  }
  $("good-here").addEventListener("click", stretch);
  for (const id of ["good-from", "good-to"]) {
    $(id).addEventListener("change", () => {
      const typed = [$("good-from"), $("good-to")].map((input) => input.value);
      const bounds = typed.map(Number); // an empty bound is 0
      const isRange = bounds.every(Number.isFinite) && bounds[0] < bounds[1];
      const lacksOne = typed.filter(Boolean).length === 1;
      unfinished = lacksOne && !isRange ? store.state.chosen : null;
      if (isRange) note({ good_range: bounds });
      else if (!typed.some(Boolean)) note({ good_range: null });
      else if (!lacksOne) onRefused("The first number of a good range must be lower than the second.");
      update();
    });
  }

  store.addEventListener("change", update);
  notes.addEventListener("change", update);
  return {
    star,
    stretch,
    zero: byScale(0),
    nudge: (steps) => {
      const sides = ends[store.state.chosen];
      const units = Math.round(unitsOf(current(store.state), sides) * STEPS + steps * 10) / STEPS;
      shift(store.state.chosen, shiftAt(units, sides), true);
    },
  };
}
