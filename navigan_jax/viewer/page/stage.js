/** The large image: edited, original, both with a divider to drag, or a map of their difference. */

import { Place } from "./api.js";
import { describeSample, formatNumber, sampleOf, viewOf } from "./views.js";

const $ = (id) => document.getElementById(id);
const ORDER = ["edited", "original", "slide", "difference"];

/** Colours of the difference, of evenly rising lightness: black, violet, red, orange, pale yellow. */
const STOPS = [
  [8, 6, 20],
  [78, 18, 110],
  [165, 44, 96],
  [229, 92, 48],
  [251, 169, 40],
  [252, 255, 190],
];
const COLOURS = Uint8ClampedArray.from({ length: 256 * 3 }, (_, i) => {
  const at = (Math.floor(i / 3) / 255) * (STOPS.length - 1);
  const low = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[low][i % 3] + (at - low) * (STOPS[low + 1][i % 3] - STOPS[low][i % 3]);
});

function draw(canvas, bitmap) {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  }
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.clearRect(0, 0, canvas.width, canvas.height); // else the last image shows through alpha
  context.drawImage(bitmap, 0, 0);
}

const pixelsOf = (canvas) =>
  canvas.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, canvas.width, canvas.height).data;

/**
 * Paints the change of each pixel, brightest where it is largest; returns its mean and maximum.
 * Images with alpha are compared over black and over white, so that colour and alpha both count.
 */
function drawDifference(canvas, before, after) {
  const { width, height } = after;
  [canvas.width, canvas.height] = [width, height];
  const [left, right] = [pixelsOf(before), pixelsOf(after)];
  const change = new Float32Array(width * height);
  let [largest, sum] = [0, 0];
  for (let i = 0; i < change.length; i += 1) {
    const [opacity, otherOpacity] = [left[4 * i + 3] / 255, right[4 * i + 3] / 255];
    let total = 0;
    for (let channel = 0; channel < 3; channel += 1) {
      const overBlack = left[4 * i + channel] * opacity - right[4 * i + channel] * otherOpacity;
      const overWhite = overBlack + 255 * (otherOpacity - opacity);
      total += (Math.abs(overBlack) + Math.abs(overWhite)) / 2;
    }
    change[i] = total / (3 * 255);
    sum += change[i];
    if (change[i] > largest) largest = change[i];
  }
  const image = new ImageData(width, height);
  for (let i = 0; i < change.length; i += 1) {
    const colour = 3 * Math.round((255 * change[i]) / (largest || 1));
    image.data.set(COLOURS.subarray(colour, colour + 3), 4 * i);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return { mean: sum / change.length, largest };
}

export function makeStage(store, onRefused) {
  const [picture, before, after, difference] = ["picture", "before", "after", "difference"].map($);
  const shown = { before: null, after: null }; // sample and mixing that each canvas shows

  function update() {
    const { compare } = store.state;
    if (picture.dataset.compare !== compare) picture.dataset.compare = compare;
    for (const input of document.querySelectorAll("#compare input")) input.checked = input.value === compare;
    const isReady = shown.after !== null && shown.after === shown.before;
    if (compare === "difference" && isReady) {
      const { mean, largest } = drawDifference(difference, before, after);
      const text = `Change per pixel: ${formatNumber(100 * mean)} % on average, ${formatNumber(100 * largest)} % at most (where it is brightest).`;
      $("picture-note").textContent = text;
      difference.setAttribute("aria-label", `Difference. ${text}`);
    } else {
      $("picture-note").textContent = describeSample(store.state.samples[store.state.current]);
    }
  }

  const keyOf = ({ sample, mix }) => JSON.stringify([sample, mix]);
  const places = {
    after: new Place(
      "after",
      (bitmap, view, sequence) => {
        draw(after, bitmap);
        shown.after = keyOf(view);
        after.dataset.sequence = sequence;
        after.dataset.shown = JSON.stringify(view);
        after.setAttribute("aria-label", `${describeSample(view.sample)}, edited`);
        $("waiting").hidden = true;
        $("layout").setAttribute("aria-busy", "false");
        update();
      },
      { onRefused },
    ),
    before: new Place(
      "before",
      (bitmap, view) => {
        draw(before, bitmap);
        shown.before = keyOf(view);
        before.dataset.shown = JSON.stringify(view);
        before.setAttribute("aria-label", `${describeSample(view.sample)}, original`);
        update();
      },
      { onRefused },
    ),
  };

  store.addEventListener("change", () => {
    const { state } = store;
    const sample = sampleOf(state);
    places.after.want(viewOf(state, sample));
    places.before.want(viewOf(state, sample, {}));
    update();
  });

  $("compare").addEventListener("change", (event) => store.set({ compare: event.target.value }));
  const slide = () => picture.style.setProperty("--divider", `${$("divider").value}%`);
  $("divider").addEventListener("input", slide);
  slide();

  return {
    /** Switches to the next kind of comparison. */
    turn() {
      store.set({ compare: ORDER[(ORDER.indexOf(store.state.compare) + 1) % ORDER.length] });
    },
  };
}
