/** Gauges: the factors that the server reads off the edited image, beside those of the original. */

import { Place } from "./api.js";
import { formatNumber, make, sampleOf, viewOf } from "./views.js";

const $ = (id) => document.getElementById(id);
const SLIGHT = 0.02; // of a factor's range: smaller changes are not marked
const UNSEEN = 0.002; // of a factor's range: smaller changes are not written
const STRONG = 0.5; // of the largest change: these are marked

/** Returns a place in a factor's range as a share of the bar, kept on the bar. */
const placeOf = (value, { low, high }) => Math.min(1, Math.max(0, (value - low) / (high - low)));

function makeRow(factor) {
  const hasRange = factor.low !== null;
  const fill = make("span", { className: "fill" });
  const tick = make("span", { className: "tick" });
  const bar = make("span", { className: "bar", "aria-hidden": "true" }, fill, tick);
  bar.hidden = !hasRange;
  const value = make("td", { className: "reading" });
  const change = make("td", { className: "reading change" });
  const name = make("th", { scope: "row", textContent: factor.name, title: factor.name });
  const row = make("tr", {}, name, make("td", { className: "scale" }, bar), value, change);
  return { row, fill, tick, value, change, factor, hasRange };
}

/** Shows a panel of gauges that follows the edited image; nothing without gauges. */
export function makeGauges(store, info) {
  if (info.gauges === null) return;
  const { source, factors } = info.gauges;
  const rows = factors.map(makeRow);
  $("gauges").hidden = false;
  document.body.classList.add("has-gauges");
  $("gauges-source").textContent = source;
  $("gauge-rows").append(...rows.map(({ row }) => row));

  function show({ values, original, changes }) {
    $("gauges-note").hidden = true;
    $("gauge-table").hidden = false;
    const largest = Math.max(...changes.map((change, i) => (rows[i].hasRange ? Math.abs(change) : 0)));
    rows.forEach(({ row, fill, tick, value, change, factor, hasRange }, i) => {
      value.textContent = formatNumber(values[i]);
      const inUnits = hasRange ? changes[i] * (factor.high - factor.low) : changes[i];
      const isUnseen = hasRange ? Math.abs(changes[i]) < UNSEEN : changes[i] === 0;
      change.textContent = isUnseen ? "" : formatNumber(inUnits, { signed: true });
      const isMarked = hasRange && Math.abs(changes[i]) >= Math.max(SLIGHT, STRONG * largest);
      row.classList.toggle("is-changed", isMarked);
      if (!hasRange) return;
      const [from, to] = [placeOf(original[i], factor), placeOf(values[i], factor)];
      // Round a circle, the bar runs from the nearer side; the text tells the change.
      fill.style.left = `${(100 * Math.min(from, to)).toFixed(1)}%`;
      fill.style.width = `${(100 * Math.abs(to - from)).toFixed(1)}%`;
      tick.style.left = `${(100 * from).toFixed(1)}%`;
    });
  }

  function refuse(reason) {
    $("gauges-note").textContent = reason;
    $("gauges-note").hidden = false;
    $("gauge-table").hidden = true;
  }

  const place = new Place("gauges", show, {
    path: "api/gauges",
    read: (response) => response.json(),
    most: 1,
    patient: true,
    onRefused: refuse,
  });
  store.addEventListener("change", () => place.want(viewOf(store.state, sampleOf(store.state))));
}
