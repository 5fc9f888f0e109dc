// Who computes: this page, or Python behind it.

import { DATA, extent } from "./arrays.js";
import { byChannel, dissect } from "./cell.js";
import { frozen, run } from "./layers.js";

export const SERVED = DATA.served;

/** Of each call, whether another image leaves it as it was recorded. */
export const held = SERVED ? DATA.calls.map(() => false) : frozen(DATA);

let running = Promise.resolve();
let newest = 0;

async function ask(way, options = {}) {
  const answer = await fetch(way, options);
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

/** Run the network on pixels: the image, and the values of every call.
 *
 *  Served, one run at a time; of the images that wait for it the last, the others get
 *  null. */
export async function compute(pixels) {
  if (!SERVED) return run(DATA, pixels);
  const mine = ++newest;
  await running;
  if (mine !== newest) return null;
  const asked = ask("run", { method: "POST", body: Uint8Array.from(pixels) });
  running = asked.catch(() => {});
  const answer = await asked;
  const all = new Float32Array(await answer.arrayBuffer());
  let start = 0;
  const values = DATA.calls.map(({ shape }) => {
    const size = shape.reduce((a, b) => a * b, 1);
    start += size;
    return all.subarray(start - size, start);
  });
  return { image: Float32Array.from(pixels), values, id: answer.headers.get("run") };
}

/** Take a value apart: [row, column, channel] of a call of what `compute` gave.
 *
 *  Served, Python is asked for sums and for what is seen of the image; `brief` asks for
 *  sums alone. */
export async function examine(ran, number, place, brief = false) {
  const cell = dissect(DATA, ran, number, place);
  if (!SERVED) return cell;
  cell.served = true;
  if (brief && !cell.call.filters) return cell;
  const way = `cell?run=${ran.id}&call=${number}&place=${place.join(",")}`;
  const told = await (await ask(way)).json();
  cell.region = told.region;
  if (!told.patch) return cell;
  const { rows, columns, bias, total, activation, value } = told;
  Object.assign(cell, { bias, sum: total, activation, worked: value });
  [cell.rows, cell.columns] = rows.length ? [rows, columns] : [[0], [0]];
  byChannel(cell, { ...told, weights: told.filter });
  return cell;
}

/** The answers to pixels, and nothing else. */
export async function answersTo(pixels) {
  if (!SERVED) return run(DATA, pixels).values[DATA.answer];
  const options = { method: "POST", body: Uint8Array.from(pixels) };
  const answer = await ask("run?brief", options);
  return new Float32Array(await answer.arrayBuffer());
}

/** Whether a place is one of a call's. */
export function within(number, place) {
  const shape = extent(DATA.calls[number].shape);
  return place.length === 3 && place.every((p, i) => p >= 0 && p < shape[i]);
}
