/** The strip of directions: a card for each, with the sample at −s and +s, sorted and filtered. */

import { Place } from "./api.js";
import { STAR, formatEnds, formatNumber, icon, make, sampleOf, viewOf } from "./views.js";

const $ = (id) => document.getElementById(id);
const AT_ONCE = 1; // cards whose previews are requested at a time: browsers open few connections
const SMALL_IS_GOOD = ["residual", "shift_error"];
const SYMBOLS = { eigenvalue: "λ", residual: "residual", accuracy: "accuracy", shift_error: "error" };

export function makeStrip(store, info, notes, choose) {
  const { ends, measures } = info.directions;
  const nearer = (index) => Math.min(...ends[index].map(Math.abs));
  const list = $("cards");
  let waiting = []; // cards in view whose previews are out of date
  let underWay = 0;

  const sides = (card) => [
    [card.minus, ends[card.index][0]],
    [card.plus, ends[card.index][1]],
  ];

  const cards = ends.map((_, index) => {
    const [minus, plus] = [0, 1].map(() => make("canvas", { width: 1, height: 1, "aria-hidden": "true" }));
    const title = make("span", { className: "title" });
    const value = make("span", { className: "value" });
    const star = icon(STAR, "starred");
    const button = make(
      "button",
      { type: "button", tabIndex: -1 },
      make("span", { className: "pair" }, minus, plus),
      make("span", { className: "caption" }, title, star),
      value,
    );
    const card = { index, button, minus, plus, title, value, star, item: make("li", {}, button), isSeen: false };
    card.places = [minus, plus].map(
      (canvas, side) =>
        new Place(
          `card ${index} ${side}`,
          (bitmap) => {
            [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
            canvas.getContext("2d").drawImage(bitmap, 0, 0);
            canvas.dataset.shown = "true";
          },
          { most: 1, small: true, patient: true },
        ),
    );
    button.addEventListener("click", () => choose(index));
    return card;
  });

  // Previews of the cards in view, one card after the other.
  const keyOf = () => JSON.stringify([sampleOf(store.state), store.state.mix]);
  const isOld = (card) => card.isSeen && card.key !== keyOf();

  async function work() {
    while (underWay < AT_ONCE && waiting.length) {
      const card = waiting.shift();
      if (!isOld(card)) continue;
      card.key = keyOf();
      underWay += 1;
      const views = sides(card).map(([, shift]) => viewOf(store.state, sampleOf(store.state), { [card.index]: shift }));
      Promise.all(card.places.map((place, side) => place.settle(views[side]))).finally(() => {
        underWay -= 1;
        work();
      });
    }
  }

  let timer;
  function refresh(delay = 0) {
    clearTimeout(timer);
    timer = setTimeout(() => {
      waiting = shownCards().filter(isOld);
      work();
    }, delay);
  }

  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) cards[Number(entry.target.dataset.index)].isSeen = entry.isIntersecting;
      refresh();
    },
    { root: null, rootMargin: "0px 200px" },
  );
  for (const card of cards) {
    card.item.dataset.index = card.index;
    observer.observe(card.item);
  }

  // Order.
  $("sort").replaceChildren(
    ...measures.map(({ name }, at) => make("option", { value: `measure ${at}`, textContent: name })),
    make("option", { value: "index", textContent: "number" }),
    make("option", { value: "scale", textContent: "s (smaller side)" }),
    make("option", { value: "name", textContent: "name" }),
  );

  function ordered() {
    const how = $("sort").value;
    const wish = $("find").value.trim().toLowerCase();
    const found = cards.filter(({ index }) => {
      const { starred } = notes.get(index);
      const name = notes.nameOf(index);
      if ($("starred-only").checked && !starred) return false;
      return !wish || String(index) === wish || name.toLowerCase().includes(wish);
    });
    const orders = {
      index: () => 0,
      scale: (a, b) => nearer(a.index) - nearer(b.index),
      name: (a, b) => {
        const [left, right] = [notes.nameOf(a.index), notes.nameOf(b.index)];
        return Number(!left) - Number(!right) || left.localeCompare(right);
      },
    };
    const at = how.startsWith("measure ") ? Number(how.slice(8)) : 0;
    if (at === 0) return found.sort((a, b) => (orders[how] ?? orders.index)(a, b) || a.index - b.index); // the file is ranked
    const { name, values } = measures[at];
    const sign = SMALL_IS_GOOD.includes(name) ? 1 : -1;
    const known = ({ index }) => (values[index] === null ? Infinity : sign * values[index]);
    return found.sort((a, b) => known(a) - known(b) || a.index - b.index);
  }

  const shownCards = () => [...list.children].map((item) => cards[Number(item.dataset.index)]);

  function arrange() {
    const wanted = ordered().map((card) => card.item);
    const present = [...list.children];
    if (wanted.length !== present.length || wanted.some((item, i) => item !== present[i])) {
      list.replaceChildren(...wanted);
    }
    $("nothing").hidden = wanted.length > 0;
    $("count").textContent =
      wanted.length === cards.length ? String(cards.length) : `${wanted.length} of ${cards.length}`;
  }

  function update() {
    const { chosen, shifts } = store.state;
    const shownMeasure = measures[$("sort").value.startsWith("measure ") ? Number($("sort").value.slice(8)) : 0];
    for (const card of cards) {
      const { starred } = notes.get(card.index);
      const name = notes.nameOf(card.index);
      const value = `${SYMBOLS[shownMeasure.name] ?? shownMeasure.name} ${formatNumber(shownMeasure.values[card.index])}`;
      const title = name ? `${card.index} · ${name}` : String(card.index);
      if (card.title.textContent !== title) card.title.textContent = title;
      card.value.textContent = $("sort").value === "scale" ? `s ${formatEnds(ends[card.index])}` : value;
      card.button.classList.toggle("is-starred", starred);
      card.button.classList.toggle("is-shifted", Boolean(shifts[card.index]));
      if (card.index === chosen) card.button.setAttribute("aria-current", "true");
      else card.button.removeAttribute("aria-current");
      const parts = [`Direction ${card.index}`, name, starred ? "starred" : "", shifts[card.index] ? "shifted" : ""];
      card.button.setAttribute("aria-label", parts.filter(Boolean).join(", "));
    }
    arrange();
    // The tab key stops once at the whole strip.
    const shown = shownCards();
    const stop = shown.find((card) => card.index === chosen) ?? shown[0];
    for (const card of cards) card.button.tabIndex = card === stop ? 0 : -1;
    refresh(150);
  }

  list.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const shown = shownCards();
    const at = shown.findIndex((card) => card.button === document.activeElement);
    const to = shown[Math.max(0, Math.min(shown.length - 1, at + step))];
    for (const card of shown) card.button.tabIndex = card === to ? 0 : -1;
    to.button.focus();
  });
  for (const id of ["sort", "starred-only", "find"]) $(id).addEventListener("input", update);

  store.addEventListener("change", update);
  notes.addEventListener("change", update);

  return {
    /** Selects the direction `by` places further in the order shown. */
    step(by) {
      const shown = shownCards();
      if (!shown.length) return;
      const at = shown.findIndex((card) => card.index === store.state.chosen);
      choose(shown[at < 0 ? 0 : (at + by + shown.length) % shown.length].index);
    },
    /** Scrolls the strip, and only the strip, until a direction is in view. */
    reveal(index) {
      const { item } = cards[index];
      if (!item.isConnected) return;
      const [left, right] = [item.offsetLeft - list.offsetLeft, item.offsetLeft - list.offsetLeft + item.offsetWidth];
      if (left < list.scrollLeft) list.scrollLeft = left - 12;
      else if (right > list.scrollLeft + list.clientWidth) list.scrollLeft = right - list.clientWidth + 12;
    },
  };
}
