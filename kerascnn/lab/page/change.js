// What changes the answer: a covered square, a shift, the pixels in another order.

import { DATA, written } from "./arrays.js";
import { answersTo } from "./network.js";
import { drawImage } from "./strip.js";

/** Pixels with a square filled with the image's mean colour, as occlusion does it. */
export function covered(pixels, [height, width, channels], top, left, size) {
  const result = Uint8Array.from(pixels);
  for (let k = 0; k < channels; k++) {
    let sum = 0;
    for (let i = k; i < pixels.length; i += channels) sum += pixels[i];
    const mean = rounded(sum / (height * width));
    for (let r = Math.max(0, top); r < Math.min(height, top + size); r++) {
      for (let c = Math.max(0, left); c < Math.min(width, left + size); c++) {
        result[(r * width + c) * channels + k] = mean;
      }
    }
  }
  return result;
}

/** Round as NumPy does: a half to the even neighbour. */
function rounded(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 ? low + 1 : low;
}

/** Pixels moved down and to the right; the border's pixels fill what becomes free. */
export function shifted(pixels, [height, width, channels], down, right) {
  const clip = (p, size) => Math.max(0, Math.min(size - 1, p));
  return Uint8Array.from(pixels, (_, i) => {
    const pixel = Math.floor(i / channels);
    const r = clip(Math.floor(pixel / width) - down, height);
    const c = clip((pixel % width) - right, width);
    return pixels[(r * width + c) * channels + (i % channels)];
  });
}

/** A fixed order of so many things, always the same of a seed. */
export function order(count, seed = 1) {
  const places = Array.from({ length: count }, (_, i) => i);
  let state = seed;
  for (let i = count - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const j = Math.floor((state / 2 ** 32) * (i + 1));
    [places[i], places[j]] = [places[j], places[i]];
  }
  return places;
}

/** Pixels in a fixed other order. */
export function permuted(pixels, [height, width, channels]) {
  const places = order(height * width);
  return Uint8Array.from(pixels, (_, i) => {
    return pixels[places[Math.floor(i / channels)] * channels + (i % channels)];
  });
}

/** Where squares begin along an axis; the last ends at the border. */
function starts(length, size, stride) {
  const found = [];
  for (let p = 0; p <= length - size; p += stride) found.push(p);
  if (found.at(-1) !== length - size) found.push(length - size);
  return found;
}

/** What each pixel costs a class when squares on it are covered: the mean of the drops. */
export async function occlusion(pixels, shape, target, size, told = () => true) {
  const [height, width] = shape;
  const stride = Math.max(1, Math.floor(size / 4));
  const whole = (await answersTo(pixels))[target];
  const [total, count] = [
    new Float64Array(height * width),
    new Float64Array(height * width),
  ];
  const [rows, columns] = [starts(height, size, stride), starts(width, size, stride)];
  for (const top of rows) {
    for (const left of columns) {
      const drop =
        whole - (await answersTo(covered(pixels, shape, top, left, size)))[target];
      for (let r = top; r < top + size; r++) {
        for (let c = left; c < left + size; c++) {
          total[r * width + c] += drop;
          count[r * width + c] += 1;
        }
      }
    }
    await new Promise((done) => setTimeout(done)); // the page stays alive
    if (!told(total.map((sum, i) => sum / Math.max(1, count[i])))) return null;
  }
  return total.map((sum, i) => sum / Math.max(1, count[i]));
}

/** Make the section work; `take(pixels, name, null)` makes the changed image the page's,
 *  `failed(error)` is told of an answer that did not come. */
export function changing(take, failed) {
  const byName = (id) => document.getElementById(id);
  const canvas = byName("changed");
  const heat = byName("changed-heat");
  const [height, width] = DATA.shape;
  let own = null; // the unchanged image, and its answers
  let now = null;
  let square = null;
  let [busy, again] = [false, false];
  let mapping = 0;
  let mapped = false; // whether there is a map of what covering costs

  const size = () => Number(byName("square").value);
  const number = (id) => Number(byName(id).value);

  function altered() {
    let pixels = shifted(own.pixels, DATA.shape, number("down"), number("right"));
    if (byName("permute").checked) pixels = permuted(pixels, DATA.shape);
    if (square) pixels = covered(pixels, DATA.shape, ...square, size());
    return pixels;
  }

  // The map is one of the unchanged image.
  const cover = () => {
    const plain = number("down") === 0 && number("right") === 0;
    heat.hidden = !mapped || !plain || byName("permute").checked;
  };

  async function show() {
    for (const id of ["square", "down", "right"])
      byName(`${id}-told`).textContent = byName(id).value;
    now = altered();
    drawImage(canvas, now, DATA.shape);
    cover();
    again = busy;
    if (busy) return;
    busy = true;
    await answered().catch(failed);
    busy = false;
  }

  /** Tell the answer to what is shown, until it is one to the last change. */
  async function answered() {
    do {
      again = false;
      const found = await answersTo(now);
      const name = (k) => DATA.labels?.[k] ?? `class ${k}`;
      const best = [...found.keys()].reduce((a, b) => (found[b] > found[a] ? b : a));
      const { target, answers } = own;
      const said =
        `${name(target)}: ${written(answers[target], 3)} before, ` +
        `${written(found[target], 3)} now` +
        (best === target
          ? ""
          : `; now the answer is ${name(best)}, ${written(found[best], 3)}`);
      byName("changed-answer").textContent = `${said}.`;
      await new Promise((done) => setTimeout(done));
    } while (again);
  }

  const spot = (event) => {
    const box = canvas.getBoundingClientRect();
    const y = Math.floor(((event.clientY - box.top) / box.height) * height);
    const x = Math.floor(((event.clientX - box.left) / box.width) * width);
    return [y - Math.floor(size() / 2), x - Math.floor(size() / 2)];
  };
  canvas.addEventListener("pointermove", (event) => {
    square = spot(event);
    show();
  });
  canvas.addEventListener("pointerdown", (event) => {
    square = spot(event);
    show();
  });
  canvas.addEventListener("pointerleave", () => {
    square = null;
    show();
  });
  canvas.addEventListener("keydown", (event) => {
    const steps = {
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
    };
    const step = steps[event.key];
    if (!step && event.key !== "Escape") return;
    event.preventDefault();
    const [top, left] = square ?? [0, 0];
    square = step ? [top + step[0], left + step[1]] : null;
    show();
  });
  for (const id of ["square", "down", "right", "permute"]) {
    byName(id).addEventListener("input", show);
  }
  byName("square").max = Math.min(height, width);
  byName("square").value = Math.max(1, Math.floor(Math.min(height, width) / 4));
  for (const id of ["down", "right"]) {
    byName(id).max = Math.floor(height / 4);
    byName(id).min = -Math.floor(height / 4);
  }
  byName("restore").addEventListener("click", () => {
    for (const id of ["down", "right"]) byName(id).value = 0;
    byName("permute").checked = false;
    square = null;
    show();
  });
  byName("keep").addEventListener("click", () => take(now, "changed image", null));

  byName("occlude").addEventListener("click", async () => {
    const mine = ++mapping;
    const paint = (values) => {
      if (mine !== mapping) return false;
      const most = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
      [heat.height, heat.width] = [height, width];
      const context = heat.getContext("2d");
      const picture = context.createImageData(width, height);
      values.forEach((value, i) => {
        const colour = value < 0 ? [60, 130, 255] : [255, 170, 0];
        picture.data.set(
          [...colour, Math.round((230 * Math.abs(value)) / most)],
          4 * i,
        );
      });
      context.putImageData(picture, 0, 0);
      mapped = true;
      cover();
      return true;
    };
    byName("occlude").disabled = true;
    const { pixels, target } = own;
    const map = occlusion(pixels, DATA.shape, target, size(), paint);
    const found = await map.catch(failed);
    byName("occlude").disabled = false;
    if (found) {
      const most = found.reduce((a, b) => Math.max(a, b), -Infinity);
      byName("heat-told").textContent =
        `gold: covering it lowers the answer, by at most ${written(most, 3)}; blue: raises it`;
    }
  });

  /** Another image. */
  return (ran, pixels) => {
    const answers = ran.values[DATA.answer];
    const target = [...answers.keys()].reduce((a, b) =>
      answers[b] > answers[a] ? b : a,
    );
    own = { pixels, answers, target };
    mapping++;
    [mapped, square] = [false, null];
    byName("heat-told").textContent = "";
    return show();
  };
}
