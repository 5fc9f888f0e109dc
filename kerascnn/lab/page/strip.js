// The strip of volumes, and the maps of one layer.

import { array, counted, extent } from "./arrays.js";

const COLOURS = [
  [
    [38, 20, 70],
    [255, 214, 102],
  ], // 0 to the limit: dark to gold
  [
    [24, 78, 150],
    [120, 190, 255],
  ], // below 0: blue
];
const STEPS = 256;

// All colours as the numbers that a canvas' memory has for them: of 0 to the limit, then
// of the values below 0.
const PALETTE = Uint32Array.from({ length: 2 * STEPS }, (_, n) => {
  const [start, end] = COLOURS[Math.floor(n / STEPS)];
  const share = Math.sqrt((n % STEPS) / (STEPS - 1));
  const mixed = start.map((from, i) => from + (end[i] - from) * share);
  return new Uint32Array(Uint8ClampedArray.from([...mixed, 255]).buffer)[0];
});

/** How maps lie in a mosaic: columns of tiles, and pixels of a cell. */
export function mosaic(shape, wide) {
  const [height, width, maps] = extent(shape);
  const flat = height * width === 1;
  const many = flat
    ? Math.min(maps, 32)
    : Math.ceil(Math.sqrt(maps * (height / width)));
  const gap = flat ? 1 : 2;
  const across = Math.min(maps, Math.max(1, many));
  const scale = Math.max(1, Math.floor(Math.min(28, (wide / across - gap) / width)));
  const tile = [height * scale + gap, width * scale + gap];
  const down = Math.ceil(maps / across);
  const size = [down * tile[0] + gap, across * tile[1] + gap];
  return { height, width, maps, across, scale, tile, size, gap };
}

/** Where a cell lies in a mosaic: [left, top]. */
export function spot(tiles, [row, column, map]) {
  const left = (map % tiles.across) * tiles.tile[1] + tiles.gap + column * tiles.scale;
  const top = Math.floor(map / tiles.across) * tiles.tile[0] + tiles.gap;
  return [left, top + row * tiles.scale];
}

/** Which cell lies at a point of a mosaic: [row, column, map] or null. */
export function hit(tiles, x, y) {
  const [i, j] = [y, x].map((v, axis) =>
    Math.floor((v - tiles.gap) / tiles.tile[axis]),
  );
  const map = i * tiles.across + j;
  if (i < 0 || j < 0 || j >= tiles.across || map >= tiles.maps) return null;
  const row = Math.floor((y - tiles.gap - i * tiles.tile[0]) / tiles.scale);
  const column = Math.floor((x - tiles.gap - j * tiles.tile[1]) / tiles.scale);
  return row < tiles.height && column < tiles.width && row >= 0 && column >= 0
    ? [row, column, map]
    : null;
}

/** Draw all maps of a layer; each cell is `scale` pixels wide. */
export function draw(canvas, values, tiles) {
  const { height, width, maps, scale } = tiles;
  const [high, wide] = tiles.size;
  if (canvas.height !== high || canvas.width !== wide)
    [canvas.height, canvas.width] = [high, wide];
  let limit = 0;
  for (const value of values) limit = Math.max(limit, Math.abs(value));
  const step = (STEPS - 1) / (limit || 1);
  const picture = new Uint32Array(high * wide);
  for (let map = 0; map < maps; map++) {
    for (let row = 0; row < height; row++) {
      const [left, top] = spot(tiles, [row, 0, map]);
      const start = top * wide + left;
      for (let column = 0; column < width; column++) {
        const value = values[(row * width + column) * maps + map];
        const place = (value < 0 ? STEPS : 0) + Math.round(Math.abs(value) * step);
        const x = start + column * scale;
        picture.fill(PALETTE[place], x, x + scale);
      }
      for (let y = 1; y < scale; y++) {
        picture.copyWithin(start + y * wide, start, start + width * scale);
      }
    }
  }
  const bytes = new Uint8ClampedArray(picture.buffer);
  canvas.getContext("2d").putImageData(new ImageData(bytes, wide), 0, 0);
}

/** Draw pixels of an image, one canvas pixel each. */
export function drawImage(canvas, pixels, [height, width, channels]) {
  [canvas.height, canvas.width] = [height, width];
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    for (let k = 0; k < 3; k++) {
      picture.data[4 * i + k] = pixels[i * channels + Math.min(k, channels - 1)];
    }
    picture.data[4 * i + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

/** The longest way to each call: its column in the strip. */
function columns(data) {
  const found = [];
  data.calls.forEach((call) => {
    const before = call.inputs.map((n) => (n < 0 ? 0 : found[n]));
    found.push(1 + Math.max(0, ...before));
  });
  return found;
}

const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** A volume to scale, as the slides draw it: height, width, and channels as depth. */
function volume(sizes, tallest) {
  const [height, width, maps] = extent(sizes);
  const unit = 84 / tallest;
  const flat = height * width === 1;
  const high = flat ? Math.min(110, 12 + maps / 6) : Math.max(4, height * unit);
  const deep = flat ? 7 : Math.max(4, 9 * Math.log2(1 + maps));
  const slant = flat ? 5 : Math.max(3, width * unit * 0.32);
  const picture = shape("svg", {
    width: deep + slant + 2,
    height: high + slant + 2,
    "aria-hidden": "true",
  });
  const lines = (points) => points.map((point) => point.join(",")).join(" ");
  const [a, b, c] = [1, 1 + slant, 1 + deep];
  const faces = [
    [
      "front",
      [
        [a, b],
        [c, b],
        [c, b + high],
        [a, b + high],
      ],
    ],
    [
      "top",
      [
        [a, b],
        [a + slant, 1],
        [c + slant, 1],
        [c, b],
      ],
    ],
    [
      "side",
      [
        [c, b],
        [c + slant, 1],
        [c + slant, 1 + high],
        [c, b + high],
      ],
    ],
  ];
  for (const [name, points] of faces) {
    picture.append(shape("polygon", { class: name, points: lines(points) }));
  }
  return picture;
}

function label(tag, text, className) {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

/** Write a name that may be broken behind each underscore. */
function broken(target, name) {
  name.split(/(?<=_)/).forEach((part, n) => {
    if (n) target.append(document.createElement("wbr"));
    target.append(part);
  });
  return target;
}

/** Build the strip; `choose` is called with the number of a call. */
export function build(target, data, choose) {
  const tallest = Math.max(data.shape[0], ...data.calls.map((c) => extent(c.shape)[0]));
  const ranks = columns(data);
  const buttons = [];
  const start = document.createElement("div");
  start.className = "rank";
  const image = document.createElement("div");
  image.className = "volume image";
  const face = document.createElement("canvas");
  face.className = "face";
  image.append(
    face,
    label("b", "image 이미지", "name"),
    label("span", data.shape.join("×"), "size"),
  );
  start.append(image);
  const stacks = [start];
  data.calls.forEach((call, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = `volume ${call.op}`;
    const costs = call.parameters
      ? `${call.expression} = ${counted(call.parameters)}`
      : "";
    button.append(
      volume(call.shape, tallest),
      broken(label("b", "", "name"), call.name),
      label("span", call.shape.join("×"), "size"),
      label("span", costs, "cost"),
    );
    if (call.op === "recorded") button.append(label("span", "as recorded", "mark"));
    button.addEventListener("click", () => choose(number));
    if (!stacks[ranks[number]]) {
      stacks[ranks[number]] = document.createElement("div");
      stacks[ranks[number]].className = "rank";
    }
    stacks[ranks[number]].append(button);
    buttons.push(button);
  });
  target.replaceChildren(...stacks);
  return { buttons, face };
}

/** The layers that a call is given, by name. */
export function origin(data, call) {
  return call.inputs
    .map((n) => (n < 0 ? "the image" : data.calls[n].name))
    .join(" and ");
}

/** How far the page is from Keras, over all values of the recorded image. */
export function farthest(data, values) {
  return Math.max(
    ...data.calls.map((call, n) => {
      const own = array(call.keras);
      let [most, far] = [1, 0];
      for (let i = 0; i < own.length; i++) {
        most = Math.max(most, Math.abs(own[i]));
        far = Math.max(far, Math.abs(own[i] - values[n][i]));
      }
      return far / most;
    }),
  );
}
