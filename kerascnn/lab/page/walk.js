// The walk: an answer taken back to the pixels, by the terms that made it what it is.

import { DATA, array, extent, written } from "./arrays.js";
import { element } from "./cell.js";
import { givenShape } from "./layers.js";
import { drawImage } from "./strip.js";

/** Where a value of the result of a reshape lies in what was reshaped. */
function same(from, to, [row, column, channel]) {
  const index = (row * to[1] + column) * to[2] + channel;
  const pixel = Math.floor(index / from[2]);
  return [Math.floor(pixel / from[1]), pixel % from[1], index % from[2]];
}

/** The terms of a cell: { number, place, amount, slope, told }; number −1 is the image.
 *  The amounts add up to the value, or to what the activation is given. */
export function termsOf(data, cell) {
  const { call, place } = cell;
  const [number] = call.inputs;
  if (number === undefined) return [];
  const given = givenShape(data, call);
  const one = (where, slope = 1, from = number) => {
    const inside = where.every((p, i) => p >= 0 && p < givenOf(data, from)[i]);
    return inside
      ? [{ number: from, place: where, amount: cell.value, slope, told: () => "" }]
      : [];
  };
  if (cell.channels) {
    return cell.channels.flatMap(({ channel, patch, weights, products }) =>
      products.flatMap((line, i) =>
        line.flatMap((amount, j) => {
          if (cell.zeros[i][j]) return [];
          const [x, slope] = [patch[i][j], weights[i][j]];
          const told = () =>
            `${written(x, 3)} · ${written(slope, 3)} = ${written(amount, 3)}`;
          const where = [cell.rows[i], cell.columns[j], channel];
          return [{ number, place: where, amount, slope, told }];
        }),
      ),
    );
  }
  if (cell.met) {
    const count = cell.met.flat().filter((v) => v !== null).length;
    const found = cell.met.flatMap((line, i) =>
      line.flatMap((value, j) => {
        if (value === null || (call.by === "max" && value !== cell.value)) return [];
        const share = call.by === "max" ? 1 : 1 / count;
        const where = [cell.rows[i], cell.columns[j], place[2]];
        const told = () =>
          call.by === "max" ? "the greatest" : `${written(value, 3)} / ${count}`;
        return [{ number, place: where, amount: value * share, slope: share, told }];
      }),
    );
    return call.by === "max" ? found.slice(0, 1) : found;
  }
  if (call.op === "same") return one(same(given, extent(call.shape), place));
  if (call.op === "pad") {
    return one([place[0] - call.before[0], place[1] - call.before[1], place[2]]);
  }
  if (call.op === "shortcut") {
    return one([place[0] * call.stride, place[1] * call.stride, place[2]]);
  }
  if (call.op === "concatenate") {
    let channel = place[2];
    for (const from of call.inputs) {
      const wide = givenOf(data, from)[2];
      if (channel < wide) return one([place[0], place[1], channel], 1, from);
      channel -= wide;
    }
  }
  if (call.op === "merge") {
    return call.inputs.map((from, n) => {
      const slope = call.by === "subtract" && n > 0 ? -1 : 1;
      const amount = slope * cell.given[n];
      return { number: from, place, amount, slope, told: () => written(amount, 3) };
    });
  }
  if (cell.given) {
    const scale = call.scale ? array(call.scale) : [1];
    return one(place, scale[place[2] % scale.length] < 0 ? -1 : 1);
  }
  return [];
}

const givenOf = (data, number) =>
  extent(number < 0 ? data.shape : data.calls[number].shape);

/** Walk back from a cell: at each step the term that makes it most what it is.
 *
 *  `examine(number, place)` takes a cell apart; `chosen` has, of each step that was
 *  decided otherwise, which of the three greatest terms. What a negative weight meets is
 *  followed down, not up. `tell(step, number)` gets each step as it is known, and says
 *  whether to go on. */
export async function walk(data, examine, start, chosen = {}, tell = () => true) {
  const steps = [];
  let here = start;
  let towards = 1;
  while (here && here.number >= 0) {
    const cell = await examine(here.number, here.place);
    const found = termsOf(data, cell).sort((a, b) => towards * (b.amount - a.amount));
    const pick = Math.min(chosen[steps.length] ?? 0, Math.max(0, found.length - 1));
    steps.push({ cell, found: found.slice(0, 3), pick });
    if (!tell(steps.at(-1), steps.length - 1)) break;
    here = found[pick];
    if (here?.slope < 0) towards = -towards;
  }
  return { steps, end: here ?? null };
}

/** Show the walk; `go(number, place)` leads to a cell. */
export function walking(examine, go) {
  const classes = document.getElementById("walk-class");
  const list = document.getElementById("walk-steps");
  const canvas = document.getElementById("walk-image");
  let chosen = {};
  let state = null;
  let cells = null; // of this image, by their place
  let turn = 0;

  const look = (number, place) => {
    const key = `${number},${place}`;
    if (!cells.has(key)) cells.set(key, examine(state, number, place, true));
    return cells.get(key);
  };

  const where = ({ number, place }) => {
    const flat = number >= 0 && DATA.calls[number].shape.length === 1;
    return flat ? `unit ${place[2]}` : `r${place[0]} c${place[1]} m${place[2]}`;
  };

  /** Walk; the steps before the `first` stay as they are. */
  async function show(first = 0) {
    const mine = ++turn;
    while (list.children.length > first) list.lastChild.remove();
    const tell = (step, n) => {
      if (mine !== turn) return false;
      if (n >= first) list.append(line(step, n));
      return true;
    };
    document.getElementById("walk-end").textContent = "walking …";
    const place = [0, 0, Number(classes.value)];
    const start = { number: DATA.answer, place };
    const found = await walk(DATA, look, start, chosen, tell);
    if (mine !== turn) return;
    drawImage(canvas, state.pixels, DATA.shape);
    picture(found);
    const end = document.getElementById("walk-end");
    const pixel = found.end?.place;
    end.textContent = pixel
      ? `It ends at the image's row ${pixel[0]}, column ${pixel[1]}, channel ${pixel[2]}: ` +
        `a pixel of ${state.pixels[(pixel[0] * DATA.shape[1] + pixel[1]) * DATA.shape[2] + pixel[2]]}.`
      : "Here the walk ends: this layer's terms are not known, or it sees zeros alone.";
  }

  function line({ cell, found, pick }, number) {
    const item = element("li", "", found.length > 1 ? "step" : "step plain");
    const name = element("button", `${cell.call.name} ${where(cell)}`, "link");
    name.type = "button";
    name.addEventListener("click", () => go(cell.number, cell.place));
    item.append(name, element("b", ` ${written(cell.value)}`));
    if (found.length < 2) return item;
    const group = element("span", "", "terms");
    found.forEach((term, n) => {
      const button = element("button", `${where(term)}: ${term.told()}`);
      button.type = "button";
      button.setAttribute("aria-pressed", String(n === pick));
      button.addEventListener("click", () => {
        for (const step of Object.keys(chosen)) if (step > number) delete chosen[step];
        chosen[number] = n;
        show(number).then(() => {
          list.children[number]?.querySelectorAll(".terms button")[n]?.focus();
        });
      });
      group.append(button);
    });
    item.append(group);
    return item;
  }

  /** The pixels that each step sees, one frame within the other. */
  function picture({ steps, end }) {
    const marks = steps
      .map(({ cell }) => cell.region)
      .filter((region) => region && region.rows[1] >= region.rows[0])
      .map(({ rows, columns }) => [rows, columns]);
    if (end)
      marks.push([
        [end.place[0], end.place[0]],
        [end.place[1], end.place[1]],
      ]);
    const frame = document.getElementById("walk-frame");
    frame.querySelectorAll(".mark").forEach((mark) => mark.remove());
    const drawn = new Set();
    for (const [rows, columns] of marks) {
      if (drawn.has(`${rows},${columns}`)) continue;
      drawn.add(`${rows},${columns}`);
      const mark = element("div", "", "mark field thin");
      const sides = {
        left: columns[0] / DATA.shape[1],
        top: rows[0] / DATA.shape[0],
        width: (columns[1] - columns[0] + 1) / DATA.shape[1],
        height: (rows[1] - rows[0] + 1) / DATA.shape[0],
      };
      for (const [side, share] of Object.entries(sides)) {
        mark.style.setProperty(side, `${100 * share}%`);
      }
      frame.append(mark);
    }
  }

  classes.addEventListener("change", () => {
    chosen = {};
    show();
  });
  const count = DATA.calls[DATA.answer].shape.at(-1);
  for (let k = 0; k < count; k++) {
    classes.add(new Option(DATA.labels?.[k] ?? `class ${k}`, k));
  }
  /** Another image: its best answer is walked back. */
  return (ran, pixels) => {
    state = { ...ran, pixels };
    [chosen, cells] = [{}, new Map()];
    const values = ran.values[DATA.answer];
    classes.value = String(
      [...values.keys()].reduce((a, b) => (values[b] > values[a] ? b : a)),
    );
    return show();
  };
}
