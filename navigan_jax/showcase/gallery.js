
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const { samples, fractions, fractionNames } = data;
  const steps = fractions.length;
  const original = (steps - 1) / 2;
  const gap = 3;
  const seconds = 3.2; // of playing once back and forth
  const openingSeconds = 2.4; // of moving once to both ends
  const labels = { eigenvalue: "Eigenvalue", residual: "Residual", accuracy: "Accuracy", shift_error: "Shift error", scale: "Slider, s", equal: "Equal change", distance: "Distance", plausible: "Effective range" };
  const notes = makeNotes(data);

  // Pictures ----------------------------------------------------------------------------------

  /** Returns the number of columns: as few rows as `most` columns need, filled evenly. */
  const columnsFor = (most) => Math.ceil(samples / Math.ceil(samples / most));

  /** Draws cells {sample, step} of a sheet, row by row, at a width in CSS pixels. */
  function paint(canvas, sheet, cells, columns, width, frames = []) {
    const ratio = window.devicePixelRatio || 1;
    const rows = Math.ceil(cells.length / columns);
    const cellWidth = (width - (columns - 1) * gap) / columns;
    const cellHeight = (cellWidth * data.height) / data.width;
    const height = rows * cellHeight + (rows - 1) * gap;
    const pixels = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== pixels[0] || canvas.height !== pixels[1]) [canvas.width, canvas.height] = pixels;
    canvas.style.aspectRatio = `${pixels[0]} / ${pixels[1]}`;
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, ...pixels);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    // Whole device pixels: neighbouring cells never share one.
    const x = (i) => Math.round(i * (cellWidth + gap) * ratio);
    const y = (i) => Math.round(i * (cellHeight + gap) * ratio);
    const [w, h] = [Math.round(cellWidth * ratio), Math.round(cellHeight * ratio)];
    cells.forEach(({ sample, step }, i) => {
      const at = [x(i % columns), y(Math.floor(i / columns))];
      context.drawImage(sheet, step * data.width, sample * data.height, data.width, data.height, ...at, w, h);
    });
    for (const [column, colour] of frames) {
      const line = Math.round(2.5 * ratio);
      context.lineWidth = line;
      context.strokeStyle = getComputedStyle(canvas).getPropertyValue(colour);
      context.strokeRect(x(column) + line / 2, line / 2, w - line, pixels[1] - line);
    }
  }

  const samplesAt = (step) => Array.from({ length: samples }, (_, sample) => ({ sample, step }));

  // Sliders -----------------------------------------------------------------------------------

  /** Sets a range input to a step: value, coloured part of the track, text for screen readers. */
  function setSlider(input, step, text) {
    input.value = step;
    const place = `calc(0.5rem + ${step / (steps - 1)} * (100% - 1rem))`;
    input.style.setProperty("--from", step < original ? place : "50%");
    input.style.setProperty("--to", step < original ? "50%" : place);
    input.setAttribute("aria-valuetext", text);
  }

  const shiftText = (direction, step) => (step === original ? "original" : `t = ${direction.shifts[step]}`);

  function fillFacts(list, texts) {
    list.replaceChildren(
      ...Object.entries(labels).filter(([key]) => key in texts).map(([key, label]) => {
        const row = document.createElement("div");
        const [term, value] = [document.createElement("dt"), document.createElement("dd")];
        [term.textContent, value.textContent] = [label, texts[key]];
        row.append(term, value);
        return row;
      }),
    );
  }

  /** Returns the user's name, or else the proposed one with a question mark. */
  const nameOf = ({ index, suggestion }) =>
    notes.get(index).name || (suggestion ? `${suggestion} ?` : "");
  const titleOf = (direction) => {
    const name = nameOf(direction);
    return name ? `direction ${direction.index}, ${name}` : `direction ${direction.index}`;
  };

  function fillTitle(heading, direction) {
    const [index, name] = [direction.index, nameOf(direction)];
    const [numberPart, namePart] = heading.children;
    numberPart.textContent = name ? index : "";
    numberPart.hidden = !name;
    namePart.textContent = name || `Direction ${index}`;
    namePart.classList.toggle("proposed", Boolean(name) && !notes.get(index).name);
    namePart.title = namePart.textContent;
  }

  // Cards -------------------------------------------------------------------------------------

  const waiting = new Set();
  let isScheduled = false;
  let isPrinting = false;

  /** Paints a card at the next screen refresh, once, and only while it is in view. */
  function schedule(card) {
    waiting.add(card);
    if (isScheduled) return;
    isScheduled = true;
    requestAnimationFrame(() => {
      isScheduled = false;
      for (const card of waiting) {
        if (card.isVisible && card.isLoaded) {
          waiting.delete(card);
          paintCard(card);
        }
      }
    });
  }

  function paintCard(card) {
    const columns = columnsFor(5);
    if (isPrinting) {
      const cells = [0, original, steps - 1].flatMap(samplesAt);
      paint(card.canvas, card.sheet, cells, samples, 640);
    } else if (card.canvas.clientWidth > 0) {
      paint(card.canvas, card.sheet, samplesAt(card.step), columns, card.canvas.clientWidth);
    }
  }

  /** Shows a step that the user chose; this ends the card's opening movement. */
  function setStep(card, step) {
    card.isOpened = true;
    openingCards.delete(card);
    showStep(card, step);
  }

  function showStep(card, step) {
    card.step = step;
    const text = shiftText(card.direction, step);
    setSlider(card.slider, step, text);
    card.output.textContent = text;
    schedule(card);
  }

  function makeCard(direction) {
    const root = $("card").content.firstElementChild.cloneNode(true);
    const find = (selector) => root.querySelector(selector);
    const card = {
      direction,
      root,
      star: find(".star"),
      canvas: find("canvas"),
      slider: find("input"),
      output: find("output"),
      sheet: new Image(),
      step: direction.strongest,
      isVisible: false,
      isLoaded: false,
      isOpened: false,
    };
    const [low, high] = direction.plausible.map((edge) => (edge === null ? 1 : Math.min(1, edge)));
    for (const [side, share] of [["--low", 0.5 - low / 2], ["--high", 0.5 + high / 2]]) {
      card.slider.style.setProperty(side, `calc(0.5rem + ${share} * (100% - 1rem))`);
    }
    if (low === 1) card.slider.style.setProperty("--low", "0%");
    if (high === 1) card.slider.style.setProperty("--high", "100%");
    card.star.hidden = !notes.isOn;
    card.star.addEventListener("click", () => toggleStar(direction));
    fillFacts(find(".facts"), direction.texts);
    card.slider.addEventListener("input", () => { stop(); setStep(card, Number(card.slider.value)); });
    card.slider.addEventListener("dblclick", () => setStep(card, original));
    find(".picture").addEventListener("click", () => openZoom(card));
    for (const [event, isChosen] of [["pointerenter", true], ["pointerleave", false], ["focusin", true], ["focusout", false]]) {
      root.addEventListener(event, () => card.dot && card.dot.classList.toggle("chosen", isChosen));
    }
    const rows = Math.ceil(samples / columnsFor(5));
    card.canvas.style.aspectRatio = `${columnsFor(5) * data.width} / ${rows * data.height}`;
    card.sheet.addEventListener("load", () => { card.isLoaded = true; schedule(card); });
    card.sheet.src = `data:image/jpeg;base64,${direction.sheet}`;
    return card;
  }

  /** Shows the name and the star of a card's direction. */
  function nameCard(card) {
    const title = titleOf(card.direction);
    card.title = title;
    fillTitle(card.root.querySelector("h3"), card.direction);
    card.root.setAttribute("aria-label", title);
    card.slider.setAttribute("aria-label", `Shift of ${title}`);
    card.root.querySelector(".picture").setAttribute("aria-label", `Enlarge ${title}`);
    setStar(card.star, card.direction, title);
  }

  function setStar(button, direction, title) {
    const { starred } = notes.get(direction.index);
    button.setAttribute("aria-pressed", String(starred));
    button.setAttribute("aria-label", `Star ${title}`);
  }

  const toggleStar = ({ index }) => notes.set(index, { starred: !notes.get(index).starred });

  const cards = data.directions.map(makeCard);
  const byRoot = new Map(cards.map((card) => [card.root, card]));
  const visibility = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const card = byRoot.get(entry.target);
      card.isVisible = entry.isIntersecting;
      if (card.isVisible && waiting.has(card)) schedule(card);
    }
  }, { rootMargin: "400px" });
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => schedule(byRoot.get(entry.target))));
  for (const card of cards) {
    visibility.observe(card.root);
    sizes.observe(card.root);
  }

  // All directions ----------------------------------------------------------------------------

  let globalStep = original; // the step of the slider for all directions

  function setAll(step) {
    globalStep = step;
    setSlider($("shift-all"), step, fractionNames[step]);
    $("shift-all-text").textContent = step === original ? "original" : `t = ${fractionNames[step]}`;
    for (const card of cards) setStep(card, step);
  }

  $("shift-all").addEventListener("input", () => { stop(); setAll(Number($("shift-all").value)); });
  $("shift-all").addEventListener("dblclick", () => setAll(original));

  // Playing: the shift follows a sine, and the nearest rendered step is shown -------------------

  let playing = null;

  const nearest = (fraction) => {
    let best = 0;
    fractions.forEach((other, i) => { if (Math.abs(other - fraction) < Math.abs(fractions[best] - fraction)) best = i; });
    return best;
  };

  function show(step) {
    if ($("zoom").open) setZoomStep(step);
    else setAll(step);
  }

  function stop() {
    if (playing !== null) cancelAnimationFrame(playing);
    playing = null;
    for (const id of ["play", "zoom-play"]) {
      $(id).setAttribute("aria-pressed", "false");
      $(id).setAttribute("aria-label", "Play");
    }
  }

  function togglePlay() {
    if (playing !== null) return stop();
    let last = $("zoom").open ? zoomed.step : globalStep;
    const phase = Math.asin(Math.max(-1, Math.min(1, fractions[last])));
    let start = null;
    const tick = (now) => {
      start ??= now;
      playing = requestAnimationFrame(tick);
      const step = nearest(Math.sin(phase + ((now - start) / 1000 / seconds) * 2 * Math.PI));
      if (step !== last) show((last = step));
    };
    playing = requestAnimationFrame(tick);
    for (const id of ["play", "zoom-play"]) {
      $(id).setAttribute("aria-pressed", "true");
      $(id).setAttribute("aria-label", "Pause");
    }
  }

  $("play").addEventListener("click", togglePlay);
  $("zoom-play").addEventListener("click", togglePlay);

  // Opening: a card that first scrolls into view moves to both ends once, then rests ---------------

  const openingCards = new Map(); // card -> start time; null: the pictures are not loaded yet
  const isStill = window.matchMedia("(prefers-reduced-motion: reduce)");

  function open(now) {
    for (const [card, start] of openingCards) {
      if (!card.isLoaded) continue;
      if (start === null) openingCards.set(card, now);
      const share = start === null ? 0 : (now - start) / 1000 / openingSeconds;
      const { strongest } = card.direction;
      if (share >= 1) openingCards.delete(card);
      // From the original to the weaker end, and back through it to the stronger one.
      const step = share >= 1 ? strongest : nearest(-Math.sign(fractions[strongest]) * Math.sin(1.5 * Math.PI * share));
      if (step !== card.step) showStep(card, step);
    }
    if (openingCards.size > 0) requestAnimationFrame(open);
  }

  const firstSight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const card = byRoot.get(target);
      if (!isIntersecting || card.isOpened) continue;
      card.isOpened = true;
      firstSight.unobserve(target);
      if (openingCards.size === 0) requestAnimationFrame(open);
      openingCards.set(card, null);
    }
  }, { threshold: 0.25 });

  // Order and filter --------------------------------------------------------------------------

  // 1: ascending; -1: descending. Unknown values always come last.
  const orders = { index: 1, eigenvalue: -1, accuracy: -1, scale: 1 };
  for (const measure of data.measures) {
    const option = document.createElement("option");
    [option.value, option.textContent] = [measure, measure.replaceAll("_", " ")];
    $("sort").lastElementChild.before(option);
  }
  let shown = cards;

  function arrange() {
    const key = $("sort").value;
    const sign = (orders[key] ?? 1) * ($("reverse").getAttribute("aria-pressed") === "true" ? -1 : 1);
    const words = $("filter").value.trim().toLowerCase();
    const isStarredAlone = $("starred").getAttribute("aria-pressed") === "true";
    const matches = ({ direction }) => {
      const { text, starred } = notes.get(direction.index);
      const name = nameOf(direction);
      if (isStarredAlone && !starred) return false;
      return /^\d+$/.test(words) ? String(direction.index) === words || name.toLowerCase().includes(words)
        : `direction ${direction.index} ${name} ${text}`.toLowerCase().includes(words);
    };
    shown = cards.filter(matches).sort((a, b) => {
      const [x, y] = [a.direction[key], b.direction[key]];
      if (x === null || y === null) return (x === null) - (y === null) || a.direction.index - b.direction.index;
      return sign * (x - y) || a.direction.index - b.direction.index;
    });
    $("cards").replaceChildren(...shown.map((card) => card.root));
    for (const card of cards) if (card.dot) card.dot.style.opacity = shown.includes(card) ? 1 : 0.2;
    $("nothing").hidden = shown.length > 0;
    $("count").textContent = shown.length === cards.length ? `${cards.length} shown` : `${shown.length} of ${cards.length}`;
  }

  $("sort").addEventListener("change", arrange);
  $("filter").addEventListener("input", arrange);
  $("reverse").addEventListener("click", () => {
    const button = $("reverse");
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    arrange();
  });
  $("clear").addEventListener("click", () => {
    $("filter").value = "";
    $("starred").setAttribute("aria-pressed", "false");
    arrange();
    $("filter").focus();
  });
  $("starred").hidden = !notes.isOn;
  $("starred").addEventListener("click", () => {
    $("starred").setAttribute("aria-pressed", String($("starred").getAttribute("aria-pressed") !== "true"));
    arrange();
  });

  // Notes -------------------------------------------------------------------------------------

  function tellChanges() {
    const count = notes.changes();
    $("saving").hidden = count === 0;
    $("saving-text").textContent = `Notes on ${count} direction${count === 1 ? "" : "s"} are kept in this browser only.`;
  }

  function fillNoting() {
    const { name, text, good_range: range } = notes.get(zoomed.direction.index);
    const fill = (id, value) => { if (document.activeElement !== $(id)) $(id).value = value; };
    fill("note-name", name);
    const { suggestion } = zoomed.direction;
    $("note-name").placeholder = suggestion;
    $("note-take").hidden = !suggestion || name !== "";
    $("note-take").textContent = `use “${suggestion}”`;
    fill("note-text", text);
    fill("note-low", range ? range[0] : "");
    fill("note-high", range ? range[1] : "");
    setStar($("zoom-star"), zoomed.direction, zoomed.title);
  }

  notes.listen((index) => {
    const card = cards.find(({ direction }) => direction.index === index);
    nameCard(card);
    tellChanges();
    if (zoomed === card && $("zoom").open) {
      fillTitle($("zoom-title"), card.direction);
      fillNoting();
    }
  });

  const noteZoomed = (values) => notes.set(zoomed.direction.index, values);
  $("noting").hidden = $("zoom-star").hidden = !notes.isOn;
  document.querySelector(".noting-help").hidden = !notes.isOn;
  $("note-name").addEventListener("input", () => noteZoomed({ name: $("note-name").value.trim() }));
  $("note-take").addEventListener("click", () => {
    noteZoomed({ name: zoomed.direction.suggestion });
    $("note-name").focus();
  });
  $("note-text").addEventListener("input", () => noteZoomed({ text: $("note-text").value.trim() }));
  for (const id of ["note-low", "note-high"]) {
    $(id).addEventListener("input", () => {
      const [low, high] = ["note-low", "note-high"].map((end) => $(end).valueAsNumber);
      const isRange = low < high;
      for (const end of ["note-low", "note-high"]) $(end).setAttribute("aria-invalid", String(!isRange));
      if (isRange) noteZoomed({ good_range: [low, high] });
    });
  }
  $("note-here").addEventListener("click", () => {
    const here = Number(zoomed.direction.allShifts[zoomed.step].toPrecision(4));
    const [low, high] = notes.get(zoomed.direction.index).good_range ?? [0, 0];
    const range = [Math.min(low, here), Math.max(high, here)];
    if (range[0] < range[1]) noteZoomed({ good_range: range });
  });
  $("note-none").addEventListener("click", () => noteZoomed({ good_range: null }));
  $("zoom-star").addEventListener("click", () => toggleStar(zoomed.direction));
  $("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([notes.text()], { type: "application/json" }));
    link.download = "directions.notes.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });

  // One direction, large ----------------------------------------------------------------------

  let zoomed = null;

  /** Returns the layout of the largest picture of all samples that fits the dialog. */
  function stageSize() {
    const room = [$("zoom").querySelector(".stage").clientWidth, window.innerHeight * 0.36];
    let best = { columns: 1, width: 0, cell: 0 };
    for (let columns = 1; columns <= samples; columns++) {
      const rows = Math.ceil(samples / columns);
      const byHeight = (((room[1] - (rows - 1) * gap) / rows) * data.width) / data.height;
      const cell = Math.floor(Math.min((room[0] - (columns - 1) * gap) / columns, byHeight));
      if (cell > best.cell) best = { columns, cell, width: columns * cell + (columns - 1) * gap };
    }
    return best;
  }

  function paintZoom() {
    if (!$("zoom").open || !zoomed.isLoaded) return;
    const { columns, width } = stageSize();
    const picture = $("zoom-picture");
    picture.style.width = `${width}px`;
    paint(picture, zoomed.sheet, samplesAt(zoomed.step), columns, width);
    const columnsOfFilm = Array.from({ length: samples }, (_, sample) => fractions.map((_, step) => ({ sample, step }))).flat();
    const highest = Math.max(40 * samples, window.innerHeight * 0.25);
    const widest = ((highest / samples) * data.width * steps) / data.height;
    const film = $("film");
    const filmWidth = Math.floor(Math.min($("zoom").querySelector(".stage").clientWidth, widest));
    film.style.width = `${filmWidth}px`;
    paint(film, zoomed.sheet, columnsOfFilm, steps, filmWidth, [[original, "--faint"], [zoomed.step, "--accent"]]);
  }

  function setZoomStep(step) {
    setStep(zoomed, step);
    const text = step === original ? "original" : `t = ${zoomed.direction.shifts[step]}  (${fractionNames[step]})`;
    setSlider($("zoom-slider"), step, text);
    $("zoom-text").textContent = text;
    $("zoom-picture").setAttribute("aria-label", `${samples} samples of ${zoomed.title}, ${text}`);
    paintZoom();
  }

  function setZoomed(card, step) {
    zoomed = card;
    fillTitle($("zoom-title"), card.direction);
    const place = shown.indexOf(card);
    $("zoom-position").textContent = `${place + 1} of ${shown.length}`;
    $("zoom-previous").disabled = place === 0;
    $("zoom-next").disabled = place === shown.length - 1;
    $("zoom-slider").setAttribute("aria-label", `Shift of ${card.title}`);
    $("film").setAttribute("aria-label", `All ${steps} shifts of ${card.title}, one column each`);
    fillFacts($("zoom-facts"), card.direction.texts);
    fillNoting();
    setZoomStep(step);
  }

  function openZoom(card) {
    stop();
    zoomed = card;
    $("zoom").showModal();
    setZoomed(card, card.step);
    $("zoom-slider").focus();
  }

  function moveZoom(by) {
    const next = shown[shown.indexOf(zoomed) + by];
    if (next) setZoomed(next, zoomed.step);
  }

  $("zoom-slider").addEventListener("input", () => { stop(); setZoomStep(Number($("zoom-slider").value)); });
  $("zoom-slider").addEventListener("dblclick", () => setZoomStep(original));
  $("zoom-previous").addEventListener("click", () => moveZoom(-1));
  $("zoom-next").addEventListener("click", () => moveZoom(1));
  $("zoom-close").addEventListener("click", () => $("zoom").close());
  $("zoom").addEventListener("click", (event) => { if (event.target === $("zoom")) $("zoom").close(); });
  $("zoom").addEventListener("close", () => {
    stop();
    zoomed.root.querySelector(".picture").focus({ preventScroll: true });
    zoomed.root.scrollIntoView({ block: "nearest" });
  });
  $("film").addEventListener("click", (event) => {
    const box = $("film").getBoundingClientRect();
    stop();
    setZoomStep(Math.max(0, Math.min(steps - 1, Math.floor(((event.clientX - box.left) / box.width) * steps))));
  });

  // Keyboard ----------------------------------------------------------------------------------

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target;
    if (target.matches("input[type=search]")) {
      if (event.key === "Escape") { $("filter").value = ""; arrange(); }
      return;
    }
    if (target.matches("select, textarea, input[type=text], input[type=number]")) return;
    const isRange = target.matches("input[type=range]");
    const isOpen = $("zoom").open;
    const card = isOpen ? zoomed : byRoot.get(target.closest(".card"));
    const change = (step) => {
      stop();
      if (isOpen) setZoomStep(step);
      else if (card) setStep(card, step);
      else setAll(step);
    };
    const actions = { 0: () => change(original) };
    if (!target.matches("button")) actions[" "] = togglePlay;
    if (card && notes.isOn) actions.s = () => toggleStar(card.direction);
    if (isOpen) {
      actions.ArrowUp = () => moveZoom(-1);
      actions.ArrowDown = () => moveZoom(1);
    } else {
      actions["/"] = () => $("filter").focus();
      if (notes.isOn) actions["*"] = () => $("starred").click();
      if (card && isRange) actions.Enter = () => openZoom(card);
    }
    if (!isRange) { // a slider moves by itself
      const step = card ? card.step : globalStep;
      actions.ArrowLeft = () => change(Math.max(0, step - 1));
      actions.ArrowRight = () => change(Math.min(steps - 1, step + 1));
    }
    const action = actions[event.key];
    if (action) {
      event.preventDefault();
      action();
    }
  });

  // Spectrum ----------------------------------------------------------------------------------

  const node = (name, attributes, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    return element;
  };
  const superscript = (number) => [...String(number)].map((digit) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(digit)]).join("");

  function tickText(factor, power) {
    if (power >= -3 && power < 5) return String(Number(`${factor}e${power}`));
    return `${factor === 1 ? "" : `${factor}×`}10${superscript(power)}`;
  }

  /** Returns the ticks of the axis: powers of ten, with twos and fives if there are fewer than two. */
  function ticks(low, high) {
    const all = (factors) => {
      const found = [];
      for (let power = Math.floor(low); power <= Math.ceil(high); power++) {
        for (const factor of factors) {
          const at = power + Math.log10(factor);
          if (at >= low && at <= high) found.push({ at, text: tickText(factor, power) });
        }
      }
      return found;
    };
    const decades = all([1]);
    if (decades.length < 2) return all([1, 2, 5]);
    const every = Math.ceil(decades.length / 5);
    return decades.filter((_, i) => i % every === 0);
  }

  function drawSpectrum() {
    const points = cards.filter(({ direction }) => direction.eigenvalue).sort((a, b) => a.direction.index - b.direction.index);
    $("spectrum").hidden = points.length === 0;
    if (points.length === 0) return;
    const plot = $("spectrum").querySelector(".plot");
    const [width, height] = [plot.clientWidth, 168];
    const [left, right, top, bottom] = [44, 12, 14, 26];
    const logs = points.map(({ direction }) => Math.log10(Math.abs(direction.eigenvalue)));
    const [low, high] = [Math.min(...logs) - 0.12, Math.max(...logs) + 0.12];
    const indices = points.map(({ direction }) => direction.index);
    const [first, last] = [indices[0], indices[indices.length - 1]];
    const x = (index) => left + 8 + (last > first ? (index - first) / (last - first) : 0.5) * (width - left - right - 16);
    const y = (value) => top + ((high - value) / (high - low)) * (height - top - bottom);
    const name = ({ direction }) => `${direction.texts.eigenvalue} (direction ${direction.index})`;
    const svg = node("svg", {
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": `Eigenvalues from ${name(points[0])} to ${name(points[points.length - 1])}`,
    });
    for (const { at, text } of ticks(low, high)) {
      svg.append(node("line", { class: "grid", x1: left, x2: width - right, y1: y(at), y2: y(at) }));
      svg.append(node("text", { x: left - 8, y: y(at) + 4, "text-anchor": "end" }, text));
    }
    const every = [1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 100, 200, 500].find((n) => (last - first) / n <= width / 48) || last - first;
    for (let index = Math.ceil(first / every) * every; index <= last; index += every) {
      svg.append(node("text", { x: x(index), y: height - 6, "text-anchor": "middle" }, index));
    }
    svg.append(node("polyline", { class: "line", points: points.map((_, i) => `${x(indices[i])},${y(logs[i])}`).join(" ") }));
    const spacing = (width - left - right) / points.length;
    points.forEach((card, i) => {
      const dot = node("g", {});
      const place = { cx: x(indices[i]), cy: y(logs[i]) };
      // An eigenvalue lies within λ ± residual·|λ|; bars that the dot would hide are left out.
      const residual = card.direction.residual;
      if (residual > 0.05) {
        const ends = [1 + residual, Math.max(1 - residual, 1e-9)].map((factor) => y(logs[i] + Math.log10(factor)));
        const [y1, y2] = ends.map((end) => Math.max(top / 2, Math.min(height - bottom, end)));
        dot.append(node("line", { class: "bar", x1: place.cx, x2: place.cx, y1, y2 }));
        $("residual-legend").hidden = false;
      }
      dot.append(
        node("circle", { ...place, class: "target", r: Math.max(5, Math.min(12, spacing / 2)) }),
        node("circle", { ...place, class: card.direction.eigenvalue < 0 ? "negative" : "positive", r: Math.max(1.5, Math.min(3.5, spacing / 4)) }),
        node("title", {}, `${nameOf(card.direction) || `Direction ${card.direction.index}`}: λ = ${card.direction.texts.eigenvalue}`),
      );
      dot.addEventListener("click", () => {
        if (!shown.includes(card)) { $("filter").value = ""; arrange(); }
        card.root.scrollIntoView({ block: "center" });
        card.slider.focus({ preventScroll: true });
        card.root.classList.add("chosen");
        setTimeout(() => card.root.classList.remove("chosen"), 1600);
      });
      dot.style.opacity = shown.includes(card) ? 1 : 0.2;
      card.dot = dot;
      svg.append(dot);
    });
    $("negative-legend").hidden = points.every(({ direction }) => direction.eigenvalue > 0);
    plot.replaceChildren(svg);
  }

  // Start, resizing, printing -----------------------------------------------------------------

  function printing(isOn) {
    isPrinting = isOn;
    for (const card of cards) if (card.isLoaded) paintCard(card);
  }

  for (const card of cards) nameCard(card);
  arrange();
  tellChanges();
  setSlider($("shift-all"), original, "not set");
  $("shift-all-text").textContent = "–";
  for (const card of cards) {
    showStep(card, card.step);
    if (!isStill.matches) firstSight.observe(card.root);
  }
  drawSpectrum();
  new ResizeObserver(() => { drawSpectrum(); paintZoom(); }).observe(document.body);
  window.addEventListener("resize", paintZoom);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paintZoom);
  window.addEventListener("beforeprint", () => printing(true));
  window.addEventListener("afterprint", () => printing(false));
})();
