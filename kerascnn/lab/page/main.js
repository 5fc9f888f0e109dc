// The page: one network, one image, one layer, one cell.

import {
  DATA,
  array,
  counted,
  extent,
  greatest,
  tiny,
  unpack,
  written,
} from "./arrays.js";
import { bench } from "./bench.js";
import { changing, covered, occlusion, permuted, shifted } from "./change.js";
import { dissect, formula, proof, sentence, show } from "./cell.js";
import { run } from "./layers.js";
import { SERVED, compute, examine, held, within } from "./network.js";
import { answer, brush, offer } from "./own.js";
import { racing } from "./race.js";
import { fitted } from "./resize.js";
import {
  build,
  draw,
  drawImage,
  farthest,
  hit,
  mosaic,
  origin,
  spot,
} from "./strip.js";

const byId = (id) => document.getElementById(id);
const state = { layer: 0, place: [0, 0, 0], pixels: null, sample: 0, ran: null };
let strip = null;
let tiles = null;
let tilesBefore = null; // where the layer is not given the image
let followers = []; // sections that are told of another image
let resting = 0;
let linking = 0;
let turn = 0; // of images
let asked = 0; // of cells

/** Whether what is shown is what Keras recorded. */
const recorded = () => state.sample === 0;

function problem(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}

const failed = (error) => problem(`The network could not be asked: ${error.message}`);

/** Run the network on an image, and show everything anew. */
async function take(pixels, name, sample) {
  problem("");
  const mine = ++turn;
  state.pixels = pixels; // on which the brush goes on, before the answer is there
  const start = performance.now();
  const ran = await compute(pixels).catch((error) => mine === turn && failed(error));
  if (!ran || mine !== turn) return;
  Object.assign(state, { sample, ran });
  const took = performance.now() - start;
  byId("image-name").textContent = name;
  drawImage(strip.face, pixels, DATA.shape);
  drawImage(byId("image"), pixels, DATA.shape);
  answer(byId("answers"), DATA, state.ran.values[DATA.answer], took);
  const stays = held[DATA.answer] && !recorded();
  byId("stays").hidden = !stays;
  if (tiles) repaint(state.place);
  else choose(state.layer, state.place);
  // What takes longer waits for the brush to rest.
  clearTimeout(resting);
  resting = setTimeout(
    () => followers.forEach((tell) => tell(ran, pixels).catch(failed)),
    150,
  );
}

/** Show a layer; without a place its strongest cell. */
function choose(number, place = null) {
  state.layer = number;
  const call = DATA.calls[number];
  strip.buttons.forEach((button, n) => {
    button.setAttribute("aria-pressed", String(n === number));
    button.classList.toggle("source", call.inputs.includes(n));
  });
  const button = strip.buttons[number];
  const view = byId("strip");
  const middle = button.offsetLeft + button.offsetWidth / 2;
  view.scrollLeft = middle - view.clientWidth / 2;
  byId("layer-name").textContent = `${call.name} · ${call.kind}`;
  const facts = [`${call.shape.join("×")}, from ${origin(DATA, call)}`];
  if (call.parameters) {
    facts.push(`parameters 파라미터 ${call.expression} = ${counted(call.parameters)}`);
  }
  if (call.macs) facts.push(`multiply-accumulates ${counted(call.macs)}`);
  if (held[number]) facts.push("computed in Python: stays as it was recorded");
  byId("layer-facts").textContent = facts.join(" · ");
  const wide = Math.min(560, byId("maps-frame").clientWidth - 4);
  tiles = mosaic(call.shape, wide);
  const before = DATA.calls[call.inputs[0]];
  byId("before-figure").hidden = !before;
  tilesBefore = before ? mosaic(before.shape, wide) : null;
  if (before) byId("before-name").textContent = `its input 입력: ${before.name}`;
  repaint(place);
}

/** Draw the maps of the chosen layer, and a cell; without a place the strongest. */
function repaint(place) {
  const call = DATA.calls[state.layer];
  const values = state.ran.values[state.layer];
  draw(byId("maps"), values, tiles);
  if (tilesBefore) draw(byId("before"), state.ran.values[call.inputs[0]], tilesBefore);
  const fits = place && within(state.layer, place);
  point(fits ? place : greatest(values, call.shape));
}

/** Light up one cell: its window, its pixels of the image, its sum. */
async function point(place) {
  state.place = place;
  frame(byId("maps"), byId("maps-mark"), spot(tiles, place), [
    tiles.scale,
    tiles.scale,
  ]);
  const mine = ++asked;
  const cell = await examine(state.ran, state.layer, place).catch(failed);
  if (!cell || mine !== asked) return;
  windowOf(cell);
  const { region } = cell;
  const seen = byId("image-mark");
  seen.hidden = !region || region.rows[1] < region.rows[0];
  if (!seen.hidden) {
    const [height, width] = DATA.shape;
    const sizes = [region.rows, region.columns].map(([a, b]) => b - a + 1);
    box(
      seen,
      region.columns[0] / width,
      region.rows[0] / height,
      sizes[1] / width,
      sizes[0] / height,
    );
  }
  show(byId("terms"), DATA, cell);
  byId("formula").textContent = formula(cell);
  byId("value").textContent = written(cell.value);
  byId("proof").textContent = proof(cell, recorded());
  byId("sentence").textContent = sentence(DATA, cell, recorded());
  // The address waits for the mouse to rest: browsers refuse hundreds of changes.
  clearTimeout(linking);
  linking = setTimeout(link, 200);
}

/** Make the address one that leads to this cell. */
function link() {
  const parts = [`layer=${encodeURIComponent(DATA.calls[state.layer].name)}`];
  parts.push(`cell=${state.place.join(",")}`);
  if (state.sample) parts.push(`sample=${state.sample}`);
  history.replaceState(null, "", `#${parts.join("&")}`);
}

function box(mark, left, top, width, height) {
  mark.hidden = false;
  const sides = { left, top, width, height };
  for (const [side, share] of Object.entries(sides)) {
    mark.style.setProperty(side, `${100 * share}%`);
  }
}

function frame(canvas, mark, [left, top], [width, height]) {
  const { width: w, height: h } = canvas;
  box(mark, left / w, top / h, width / w, height / h);
}

/** The window of a cell in the maps before it, on the map that weighs most. */
function windowOf(cell) {
  const mark = byId("before-mark");
  const rows = cell.rows.filter((r) => r !== null);
  const columns = cell.columns.filter((c) => c !== null);
  mark.hidden = !tilesBefore || !rows.length || !columns.length;
  if (mark.hidden) return;
  let map = cell.place[2];
  if (cell.channels) {
    const strongest = [...cell.channels].sort(
      (a, b) => Math.abs(b.sum) - Math.abs(a.sum),
    );
    map = strongest[0].channel;
  }
  const clip = (list, size) => {
    const inside = list.filter((p) => p >= 0 && p < size);
    return [Math.min(...inside), Math.max(...inside)];
  };
  const [top, bottom] = clip(rows, tilesBefore.height);
  const [left, right] = clip(columns, tilesBefore.width);
  const { scale } = tilesBefore;
  const size = [(right - left + 1) * scale, (bottom - top + 1) * scale];
  frame(byId("before"), mark, spot(tilesBefore, [top, left, map]), size);
}

function keys(event) {
  const [height, width] = extent(DATA.calls[state.layer].shape);
  const [row, column, map] = state.place;
  const flat = height * width === 1;
  const moves = {
    ArrowUp: flat ? [0, 0, map - tiles.across] : [row - 1, column, map],
    ArrowDown: flat ? [0, 0, map + tiles.across] : [row + 1, column, map],
    ArrowLeft: flat ? [0, 0, map - 1] : [row, column - 1, map],
    ArrowRight: flat ? [0, 0, map + 1] : [row, column + 1, map],
    PageUp: [row, column, map - 1],
    PageDown: [row, column, map + 1],
    Home: greatest(state.ran.values[state.layer], DATA.calls[state.layer].shape),
  };
  const to = moves[event.key];
  if (!to) return;
  event.preventDefault();
  if (within(state.layer, to)) point(to);
}

function hover(event) {
  const canvas = byId("maps");
  const bounds = canvas.getBoundingClientRect();
  const x = ((event.clientX - bounds.left) / bounds.width) * canvas.width;
  const y = ((event.clientY - bounds.top) / bounds.height) * canvas.height;
  const place = hit(tiles, x, y);
  if (place && place.join() !== state.place.join()) point(place);
}

/** What a link says: layer, cell, sample; in its query also what is shown of the page. */
function linked() {
  const told = new URLSearchParams(
    `${location.search.slice(1)}&${location.hash.slice(1)}`,
  );
  const last = (name) => told.getAll(name).at(-1);
  const layer = DATA.calls.findIndex((call) => call.name === last("layer"));
  const place = (last("cell") ?? "").split(",").map(Number);
  const whole = place.length === 3 && place.every((p) => Number.isInteger(p) && p >= 0);
  const sample = Number(last("sample") ?? 0);
  for (const id of ["stride", "padding", "dilation"]) {
    if (told.has(id)) byId(id).value = last(id);
  }
  if (told.has("show")) {
    const shown = last("show").split(",");
    document.body.classList.add("part");
    for (const part of document.querySelectorAll("header, main > *")) {
      part.hidden = !shown.includes(part.id);
    }
  }
  return {
    layer,
    place: whole ? place : null,
    sample: DATA.samples[sample] ? sample : 0,
  };
}

async function start() {
  await unpack();
  document.title = `${DATA.name} – lab`;
  byId("network").textContent = DATA.name;
  byId("total").textContent = `${counted(DATA.parameters)} parameters 파라미터`;
  strip = build(byId("strip"), DATA, choose);
  const { layer, place, sample } = linked();
  const first = DATA.calls.findIndex((call) => call.window);
  state.layer = layer >= 0 ? layer : Math.max(0, first);
  state.place = layer >= 0 ? place : null;
  if (!SERVED) {
    const zero = run(DATA, array(DATA.samples[0].pixels));
    const most = farthest(DATA, zero.values);
    const count = counted(zero.values.reduce((sum, v) => sum + v.length, 0));
    byId("equal").textContent =
      `All ${count} values of the first image are Keras' own within ${tiny(most)} of each ` +
      "layer's greatest.";
  } else
    byId("equal").textContent =
      "Keras computes every value, in Python behind this page.";
  followers = [
    walking(examine, (number, at) => {
      choose(number, at);
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      byId("stage").scrollIntoView({ behavior: still ? "auto" : "smooth" });
      byId("maps").focus({ preventScroll: true });
    }),
    changing(take, failed),
  ];
  await take(array(DATA.samples[sample].pixels), DATA.samples[sample].name, sample);
  const maps = byId("maps");
  maps.addEventListener("pointermove", hover);
  maps.addEventListener("pointerdown", hover);
  maps.addEventListener("keydown", keys);
  offer(DATA, take, problem);
  brush(byId("image"), DATA, () => state.pixels, take);
  addEventListener("resize", () => choose(state.layer, state.place));
  bench();
  racing();
  document.body.dataset.ready = "yes";
}

// For tests, and for the curious in the browser's console.
window.lab = { DATA, array, run, dissect, fitted, state, take, choose, point, examine };
Object.assign(window.lab, { walk, termsOf, covered, shifted, permuted, occlusion });
start().catch((error) => problem(`The page did not start: ${error.message}`));
