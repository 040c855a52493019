/** Views in the form that the server expects; texts of numbers and samples; small DOM helpers. */

/** Returns a sample without the fields that only the page uses. */
export const bare = ({ seed, own, index }) => (own === undefined ? { seed, index } : { own, index });

export const sampleOf = (state) => bare(state.samples[state.current]);

/** Returns the view of a sample with the given shifts {index: t} and the mixing of the state. */
export function viewOf(state, sample, shifts = state.shifts) {
  const moves = Object.entries(shifts)
    .filter(([, shift]) => shift !== 0)
    .map(([index, shift]) => ({ index: Number(index), shift }));
  return { sample, moves, mix: state.mix };
}

export const describeSample = ({ seed, own, index }) =>
  own === undefined ? `Seed ${seed}, sample ${index}` : `Own latent ${index}`;

const SUPERSCRIPTS = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/** Returns a number as text with three significant digits. */
export function formatNumber(value, { signed = false } = {}) {
  if (value === null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const sign = value < 0 ? "−" : signed && value > 0 ? "+" : "";
  if (size === 0 || (size >= 1e-3 && size < 1e5)) return sign + String(Number(size.toPrecision(3)));
  const [mantissa, exponent] = size.toExponential(2).split("e");
  const power = [...String(Number(exponent))].map((character) => SUPERSCRIPTS[character]).join("");
  return `${sign}${Number(mantissa)}×10${power}`;
}

/** Returns a range around 0 as text. */
export function formatEnds([low, high]) {
  const [left, right] = [low, high].map((end) => formatNumber(end, { signed: true }));
  return left.slice(1) === right.slice(1) ? `±${right.slice(1)}` : `${left} … ${right}`;
}

/** Returns a number for a text field, with at most four significant digits. */
export const editable = (value) => String(Number(value.toPrecision(4)));

/** Returns an element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element && !key.startsWith("aria")) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** Returns an SVG icon of 16 by 16 made of one path. */
export function icon(path, className = "") {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  if (className) svg.setAttribute("class", className);
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

export const STAR = "m8 1.7 1.95 3.95 4.35.63-3.15 3.07.75 4.34L8 11.64l-3.9 2.05.75-4.34L1.7 6.28l4.35-.63z";
