// Arrays of numbers: how the page's are read, and how numbers are written.

export const DATA = JSON.parse(document.getElementById("data").textContent);

let bytes = null;

/** Unpack all arrays of the page; every other function of this module needs that. */
export async function unpack() {
  const text = atob(document.getElementById("arrays").textContent);
  const packed = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream();
  const opened = stream.pipeThrough(new DecompressionStream("deflate"));
  bytes = await new Response(opened).arrayBuffer();
}

const unpacked = new Map();

/** Return an array: Float32Array, or Uint8Array of pixels. */
export function array(told) {
  if (!unpacked.has(told.at)) unpacked.set(told.at, read(told));
  return unpacked.get(told.at);
}

function read({ type, at, size }) {
  if (type === "u1") return new Uint8Array(bytes, at, size);
  if (type === "f4") return new Float32Array(bytes, at, size);
  return Float32Array.from(new Uint16Array(bytes, at, size), half);
}

/** The number that 16 bits are: a sign, 5 bits of an exponent, 10 of a fraction. */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Write a number with some digits, and a real minus. */
export function written(value, digits = 4) {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  const small = size !== 0 && (size < 1e-3 || size >= 1e6);
  const text = small
    ? value.toExponential(1)
    : String(Number(value.toPrecision(digits)));
  return text.replace("-", "−").replace("e+", "e");
}

/** Write a difference: 6e−8. */
export function tiny(value) {
  return value === 0 ? "0" : value.toExponential(0).replace("-", "−");
}

/** A whole number with commas. */
export function counted(value) {
  return value.toLocaleString("en-US");
}

/** Height, width and channels of a map; a vector is a map of one pixel, a sequence of one
 *  column. */
export function extent(shape) {
  if (shape.length === 3) return shape;
  return [shape.slice(0, -1).reduce((a, b) => a * b, 1), 1, shape.at(-1) ?? 1];
}

/** The place of the greatest value: [row, column, channel]. */
export function greatest(values, shape) {
  const [, width, channels] = extent(shape);
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  const pixel = Math.floor(best / channels);
  return [Math.floor(pixel / width), pixel % width, best % channels];
}

/** The largest distance of two arrays. */
export function apart(a, b) {
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i] - b[i]));
  return most;
}
