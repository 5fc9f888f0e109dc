// One value taken apart: window, filter, products, sum, bias, activation.

import { array, counted, extent, tiny, written } from "./arrays.js";
import { activated, givenShape, spread, taps } from "./layers.js";

const at = ([, width, channels], row, column, channel) =>
  (row * width + column) * channels + channel;

const ELEMENTWISE = ["activation", "affine", "layernorm", "lrn", "merge"];

/** Take a cell of a call apart; `ran` is what `run` returned. */
export function dissect(data, ran, number, [row, column, channel]) {
  const call = data.calls[number];
  const shape = extent(call.shape);
  const inputs = call.inputs.map((n) => (n < 0 ? ran.image : ran.values[n]));
  const value = ran.values[number][at(shape, row, column, channel)];
  const cell = {
    call,
    number,
    place: [row, column, channel],
    value,
    keras: call.keras ? array(call.keras)[at(shape, row, column, channel)] : value,
    region: region(call, row, column),
    rows: [],
    columns: [],
  };
  if (!inputs.length || call.op === "recorded") return cell;
  const given = givenShape(data, call);
  if (["convolution", "transposed", "pool"].includes(call.op)) {
    const place = call.op === "transposed" ? spread : taps;
    cell.rows = place(call, 0, row, given[0]);
    cell.columns = place(call, 1, column, given[1]);
  }
  if (call.op === "pool") return pooled(cell, inputs[0], given);
  if (call.filters) return call.kernel ? summed(cell, inputs[0], given) : cell;
  if (ELEMENTWISE.includes(call.op)) {
    cell.given = inputs.map((x) => x[at(shape, row, column, channel)]);
    [cell.rows, cell.columns] = [[row], [column]];
  }
  if (call.op === "lrn" || call.op === "layernorm" || call.activation === "softmax") {
    const start = at(shape, row, column, 0);
    cell.all = inputs[0].subarray(start, start + shape[2]);
  }
  return cell;
}

/** The pixels of the image that a place depends on: rows and columns. */
export function region(call, row, column) {
  if (!call.regions) return null;
  const [rows, columns, exact] = call.regions;
  const pick = (axis, n) => axis[Math.min(n, axis.length - 1)];
  const seen = [pick(rows, row), pick(columns, column)];
  // Zeros of a padding along one axis are zeros whatever the other says.
  const none = seen.some(([first, last]) => last < first);
  return { rows: none ? [0, -1] : seen[0], columns: none ? [0, -1] : seen[1], exact };
}

function inside(cell, given, i, j) {
  const [r, c] = [cell.rows[i], cell.columns[j]];
  const known = r !== null && c !== null;
  return known && r >= 0 && c >= 0 && r < given[0] && c < given[1];
}

function pooled(cell, x, given) {
  cell.met = cell.rows.map((r, i) =>
    cell.columns.map((c, j) =>
      inside(cell, given, i, j) ? x[at(given, r, c, cell.place[2])] : null,
    ),
  );
  return cell;
}

/** The sum of a filter: every product, by channel. */
function summed(cell, x, given) {
  const { call, place } = cell;
  const filter = place[2];
  const share = given[2] / call.groups;
  const first = Math.floor(filter / (call.filters / call.groups)) * share;
  const kernel = array(call.kernel);
  const bias = call.bias ? array(call.bias) : null;
  const grid = (value) =>
    cell.rows.map((_, i) => cell.columns.map((__, j) => value(i, j)));
  const weight = (i, j, k, f) =>
    kernel[((i * cell.columns.length + j) * share + k) * call.filters + f];
  const channels = Array.from({ length: share }, (_, k) => first + k);
  const met = grid((i, j) => inside(cell, given, i, j));
  const patch = grid((i, j) =>
    channels.map((c) =>
      met[i][j] ? x[at(given, cell.rows[i], cell.columns[j], c)] : 0,
    ),
  );
  const weights = grid((i, j) => channels.map((_, k) => weight(i, j, k, filter)));
  byChannel(cell, { patch, weights, inside: met, channels });
  cell.sum = cell.channels.reduce((sum, part) => sum + part.sum, 0);
  cell.bias = bias ? bias[filter] : null;
  cell.activation = call.activation;
  if (call.activation !== "softmax") {
    cell.worked = activated(
      [cell.sum + (cell.bias ?? 0)],
      call.activation,
      1,
      call.slope,
    )[0];
    return cell;
  }
  // Softmax needs the sums of all filters, which see all channels.
  const sums = Array.from({ length: call.filters }, (_, f) => {
    let sum = bias ? bias[f] : 0;
    patch.forEach((line, i) =>
      line.forEach((values, j) =>
        values.forEach((value, k) => (sum += value * weight(i, j, k, f))),
      ),
    );
    return sum;
  });
  cell.all = Float32Array.from(sums);
  cell.worked = activated(cell.all, "softmax", sums.length)[filter];
  return cell;
}

/** Cut a patch and its filter, [row][column][channel], into their channels. */
export function byChannel(cell, { patch, weights, inside: met, channels }) {
  const each = (k, value) =>
    patch.map((line, i) => line.map((_, j) => value(patch[i][j][k], weights[i][j][k])));
  cell.zeros = met.map((line) => line.map((there) => !there));
  cell.count = patch.length * patch[0].length * channels.length;
  cell.channels = channels.map((channel, k) => {
    const products = each(k, (x, weight) => x * weight);
    return {
      channel,
      patch: each(k, (x) => x),
      weights: each(k, (_, weight) => weight),
      products,
      sum: products.flat().reduce((a, b) => a + b, 0),
    };
  });
}

/** The cell in one line, which a screen reader reads too. */
export function sentence(data, cell, recorded) {
  const { call, place } = cell;
  const [row, column, channel] = place;
  const spot =
    call.shape.length === 3
      ? `row ${row}, column ${column}, map ${channel}`
      : `unit ${channel}${name(data, cell)}`;
  const parts = [`${call.name}, ${spot}: ${written(cell.value)}.`, `${formula(cell)}.`];
  if (cell.region) {
    const { rows, columns, exact } = cell.region;
    parts.push(
      rows[1] < rows[0]
        ? "It sees zeros of the padding alone."
        : `It sees ${exact ? "" : "at most "}rows ${rows.join(" to ")} and columns ` +
            `${columns.join(" to ")} of the image.`,
    );
  }
  parts.push(`${proof(cell, recorded)}.`);
  return parts.join(" ");
}

function name(data, { number, place }) {
  const answers = data.labels && number === data.answer;
  return answers ? ` (${data.labels[place[2]]})` : "";
}

/** How far the value is from Keras' own, where that is known. */
export function proof(cell, recorded) {
  if (cell.served) {
    const far = cell.worked === undefined ? 0 : Math.abs(cell.worked - cell.value);
    return `Computed by Keras${far ? `; the sum is ${tiny(far)} from it` : ""}`;
  }
  if (cell.call.op === "recorded") return "Computed in Python, shown as recorded";
  const value = cell.worked ?? cell.value;
  if (!recorded) return "Computed in this page";
  if (value === cell.keras) return "Equal to Keras, to the last bit";
  return `Equal to Keras within ${tiny(Math.abs(value - cell.keras))}`;
}

/** How a value comes about, in words and signs. */
export function formula(cell) {
  const { call } = cell;
  const value = written(cell.value);
  if (cell.channels) {
    const bias = cell.bias === null ? "" : ` + bias ${written(cell.bias)}`;
    const own = cell.activation ?? "linear";
    const after = own === "linear" ? "" : `, ${own}`;
    const sum = written(cell.sum);
    if (!bias && !after) return `Sum of ${counted(cell.count)} products: ${value}`;
    return `Sum of ${counted(cell.count)} products ${sum}${bias}${after}: ${value}`;
  }
  if (cell.met) {
    const met = cell.met.flat().filter((v) => v !== null);
    const which = call.by === "max" ? "Greatest" : "Mean";
    const shown = met.slice(0, 9).map((v) => written(v, 3));
    const more = met.length > 9 ? `, and ${met.length - 9} more` : "";
    return `${which} of ${shown.join(", ")}${more} = ${value}`;
  }
  if (call.op === "lrn") {
    const { size, alpha, beta, kappa } = call;
    const text = `(${kappa} + ${written(alpha / size)} · sum of ${size} squares)`;
    return `${written(cell.given[0])} / ${text} to the ${beta} = ${value}`;
  }
  if (call.op === "layernorm") {
    const mean = cell.all.reduce((sum, x) => sum + x, 0) / cell.all.length;
    return `${written(cell.given[0])}, less the mean ${written(mean)} of its ${cell.all.length} channels, over their deviation, scaled and shifted = ${value}`;
  }
  if (cell.all) {
    return `e to the ${written(cell.given[0])}, over the sum of all ${cell.all.length}, = ${value}`;
  }
  if (call.op === "affine") {
    const scale = array(call.scale);
    const bias = array(call.bias);
    const k = cell.place[2];
    const factor = written(scale[k % scale.length]);
    return `${written(cell.given[0])} · ${factor} + ${written(bias[k % bias.length])} = ${value}`;
  }
  if (call.op === "merge") {
    return `${call.by} of ${cell.given.map((v) => written(v)).join(" and ")} = ${value}`;
  }
  if (cell.given) return `${call.activation}(${written(cell.given[0])}) = ${value}`;
  return `${call.kind} gives ${value}`;
}

export function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** Decimals that the numbers up to a limit are written with, all alike. */
function decimals(values, limit) {
  if (values.flat().every((v) => v === null || Number.isInteger(v))) return 0;
  const power = Math.floor(Math.log10(limit || 1));
  // As wide as two digits behind "0.": sums of what is shown come close to the sum.
  return Math.max(0, Math.min(6, power < 0 ? 1 - power : 2 - power));
}

/** A number with so many decimals, a real minus, and no minus before a zero. */
function fixed(value, digits) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** A grid of numbers, tinted by sign and size; zeros of a padding are hatched. */
export function grid(title, values, limit, zeros = null, mark = null) {
  const figure = element("figure", "", "grid");
  const table = element("table");
  const digits = decimals(values, limit);
  values.forEach((line, i) => {
    const row = table.insertRow();
    line.forEach((value, j) => {
      const box = row.insertCell();
      const hatched = value === null || zeros?.[i][j];
      const text = hatched ? "0" : fixed(value, digits);
      box.textContent = value === null ? "" : text;
      if (!hatched) box.title = written(value, 6);
      const share = Math.min(1, Math.abs(value ?? 0) / (limit || 1));
      box.style.setProperty("--share", `${Math.round(share * 70)}%`);
      box.className = (value ?? 0) < 0 ? "minus" : "plus";
      if (hatched) box.classList.add("zero");
      if (mark !== null && value === mark) box.classList.add("chosen");
    });
  });
  figure.append(element("figcaption", title), table);
  return figure;
}

const most = (values) =>
  values.flat().reduce((a, b) => Math.max(a, Math.abs(b ?? 0)), 0);

/** Fill an element with the picture of a cell. */
export function show(target, data, cell) {
  const parts = [];
  if (cell.channels && cell.rows.length * cell.columns.length === 1) {
    const from = cell.call.inputs[0];
    const order = [...cell.channels].sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum));
    const terms = order.slice(0, 10).map(({ channel, patch, weights, sum }) => {
      const [x, weight, product] = [patch[0][0], weights[0][0], sum].map((v) =>
        written(v, 3),
      );
      const text = `${unit(data, from, channel)}: ${x} · ${weight} = ${product}`;
      return { text, value: sum };
    });
    const title = `The ${terms.length} greatest of ${counted(order.length)} products 곱`;
    parts.push(bars(title, terms));
  } else if (cell.channels) {
    const order = [...cell.channels].sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum));
    const few = order.slice(0, 3);
    const note =
      order.length > 3 ? `The 3 strongest of ${order.length} channels 채널` : "";
    if (note) parts.push(element("p", note, "note"));
    const limits = ["patch", "weights", "products"].map((key) =>
      Math.max(...few.map((part) => most(part[key]))),
    );
    for (const part of few) {
      const line = element("div", "", "sum");
      const end = element("span", `= ${written(part.sum, 3)}`, "total");
      line.append(
        grid(`patch, channel ${part.channel}`, part.patch, limits[0], cell.zeros),
        element("span", "×", "sign"),
        grid("filter 필터", part.weights, limits[1]),
        element("span", "→", "sign"),
        grid("products 곱", part.products, limits[2], cell.zeros),
        end,
      );
      parts.push(line);
    }
    if (order.length > 3) {
      const rest = order.slice(3).reduce((sum, part) => sum + part.sum, 0);
      const others = `the other ${order.length - 3} channels: ${written(rest, 3)}`;
      parts.push(element("p", others, "note"));
    }
  } else if (cell.met && cell.met.length <= 8) {
    const mark = cell.call.by === "max" ? cell.value : null;
    parts.push(grid("window 윈도우", cell.met, most(cell.met), null, mark));
  }
  const softmax = [cell.call.activation, cell.activation].includes("softmax");
  if (softmax && cell.all) parts.push(shares(data, cell));
  target.replaceChildren(...parts);
}

/** The powers of e that softmax divides by their sum. */
function shares(data, { call, number, all, place }) {
  const greatest = all.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Array.from(all, (x) => Math.exp(x - greatest));
  const sum = powers.reduce((a, b) => a + b, 0);
  const labels = number === data.answer || call.shape.at(-1) === data.labels?.length;
  const order = [...powers.keys()].sort((a, b) => powers[b] - powers[a]).slice(0, 10);
  if (!order.includes(place[2])) order.push(place[2]);
  const terms = order.map((k) => {
    const name = (labels && data.labels?.[k]) || `unit ${k}`;
    const text = `${name}: e^(${written(all[k], 3)} − ${written(greatest, 3)}) = ${written(powers[k], 3)}, share ${written(powers[k] / sum, 3)}`;
    return { text, value: powers[k] };
  });
  return bars(`softmax 소프트맥스: their sum is ${written(sum, 4)}`, terms);
}

/** A value of a call by its place; one of a flattened map by where it was. */
export function unit(data, number, channel) {
  let from = number;
  while (from >= 0 && data.calls[from].op === "same") from = data.calls[from].inputs[0];
  const shape = extent(from < 0 ? data.shape : data.calls[from].shape);
  const own = extent(number < 0 ? data.shape : data.calls[number].shape);
  if (own[0] * own[1] > 1 || shape[0] * shape[1] === 1) return String(channel);
  const pixel = Math.floor(channel / shape[2]);
  const where = [Math.floor(pixel / shape[1]), pixel % shape[1], channel % shape[2]];
  return `${channel} (row ${where[0]}, column ${where[1]}, map ${where[2]})`;
}

/** Values as bars under their texts. */
export function bars(title, terms) {
  const box = element("figure", "", "grid");
  const list = element("ol", "", "bars");
  const limit = Math.max(...terms.map(({ value }) => Math.abs(value))) || 1;
  for (const { text, value } of terms) {
    const item = element("li");
    const bar = element("span", "", `bar ${value < 0 ? "minus" : "plus"}`);
    bar.style.setProperty("width", `${Math.round((100 * Math.abs(value)) / limit)}%`);
    item.append(element("span", text, "term"), bar);
    list.append(item);
  }
  box.append(element("figcaption", title), list);
  return box;
}
