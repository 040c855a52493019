/** The input of an image-to-image generator: the label map of the current sample, in colours. */

import { Place } from "./api.js";
import { describeSample, sampleOf, viewOf } from "./views.js";

const $ = (id) => document.getElementById(id);

/** Shows the label map of the current sample; nothing if latents are no label maps. */
export function makeInputs(store, info, onRefused) {
  if (!info.generator.has_label_maps) return;
  $("label-map").hidden = false;
  const accepted = "a file of your own label maps: a PNG of label ids, or an .npz with labels and instances";
  $("own").title = `Open ${accepted}`;
  $("own-file").accept = ".png,.npz,.npy";
  const canvas = $("label-map-canvas");
  const place = new Place(
    "label map",
    (bitmap, view) => {
      [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
      canvas.setAttribute("aria-label", `Label map of ${describeSample(view.sample)}`);
      canvas.dataset.shown = JSON.stringify(view);
    },
    { path: "api/label_map", most: 1, onRefused },
  );
  store.addEventListener("change", () => place.want(viewOf(store.state, sampleOf(store.state), {})));
}
