"use strict";
/**
 * Notes on directions: names, stars, good ranges, texts. The page holds those of the notes file; the
 * browser keeps changes; saving downloads a notes file to put beside the directions.
 */
const makeNotes = (data) => {
  const { digest, file } = data.notes;
  const key = `navigan_jax.notes:${digest}`;
  const empty = { name: "", starred: false, good_range: null, text: "" };
  const inFile = (index) => ({ ...empty, ...file.directions[digest]?.[index] });
  const isSame = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  const listeners = [];
  let changed = {};

  try {
    const kept = JSON.parse(localStorage.getItem(key)) ?? {};
    for (const [index, note] of Object.entries(kept)) {
      const whole = { ...empty, ...note };
      if (!isSame(whole, inFile(index))) changed[index] = whole;
    }
  } catch {
    changed = {}; // nothing stored, or the browser stores nothing for pages from the disk
  }

  function keep() {
    try {
      localStorage.setItem(key, JSON.stringify(changed));
    } catch {
      // The notes then last as long as the page; saving them as a file still works.
    }
  }

  const get = (index) => changed[index] ?? inFile(index);

  function set(index, values) {
    const note = { ...get(index), ...values };
    if (isSame(note, inFile(index))) delete changed[index];
    else changed[index] = note;
    keep();
    for (const listener of listeners) listener(index);
  }

  /** Returns the new text of the notes file; notes of other directions files stay in it. */
  function text() {
    const own = { ...file.directions[digest] };
    for (const [index, note] of Object.entries(changed)) {
      if (isSame(note, empty)) delete own[index];
      else own[index] = note;
    }
    const directions = { ...file.directions, [digest]: own };
    return `${JSON.stringify({ ...file, directions }, null, 2)}\n`;
  }

  return {
    isOn: digest !== "",
    get,
    set,
    text,
    changes: () => Object.keys(changed).length,
    listen: (listener) => listeners.push(listener),
  };
};
