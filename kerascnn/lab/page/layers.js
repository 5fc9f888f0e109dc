// The layers as the lecture has them: sums of products, window by window.
// Maps are Float32Arrays (height, width, channels), filters (height, width, channels,
// filters); sums are taken in double precision.

import { array, extent } from "./arrays.js";

// The error function to 1.2e-7 would not do for GELU's 1e-5 of large values' sums; the
// series and the continued fraction are exact to the last digits.
function erf(x) {
  const z = Math.abs(x);
  if (z > 6) return Math.sign(x);
  if (z < 2.5) {
    let term = z;
    let sum = z;
    for (let n = 1; Math.abs(term) > 1e-17 * sum; n++) {
      term *= (-z * z) / n;
      sum += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let fraction = z;
  for (let n = 60; n > 0; n--) fraction = z + n / 2 / fraction;
  return Math.sign(x) * (1 - Math.exp(-z * z) / fraction / Math.sqrt(Math.PI));
}

const SELU = [1.0507009873554805, 1.6732632423543772];

const FUNCTIONS = {
  linear: (x) => x,
  relu: (x) => Math.max(0, x),
  relu6: (x) => Math.min(6, Math.max(0, x)),
  leaky_relu: (x, slope = 0.2) => (x < 0 ? slope * x : x),
  elu: (x, slope = 1) => (x < 0 ? slope * Math.expm1(x) : x),
  selu: (x) => SELU[0] * (x < 0 ? SELU[1] * Math.expm1(x) : x),
  gelu: (x) => (x / 2) * (1 + erf(x / Math.SQRT2)),
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  silu: (x) => x / (1 + Math.exp(-x)),
  softplus: (x) => Math.max(0, x) + Math.log1p(Math.exp(-Math.abs(x))),
  softsign: (x) => x / (1 + Math.abs(x)),
  tanh: Math.tanh,
  exponential: Math.exp,
};

/** Apply an activation to all values; softmax goes over the channels. */
export function activated(values, name, channels, slope) {
  const result = new Float32Array(values.length);
  if (name !== "softmax") {
    const formula = FUNCTIONS[name];
    for (let i = 0; i < values.length; i++) result[i] = formula(values[i], slope);
    return result;
  }
  for (let start = 0; start < values.length; start += channels) {
    const part = values.subarray(start, start + channels);
    const most = part.reduce((a, b) => Math.max(a, b), -Infinity);
    let sum = 0;
    for (const x of part) sum += Math.exp(x - most);
    part.forEach((x, c) => (result[start + c] = Math.exp(x - most) / sum));
  }
  return result;
}

/** Positions of a window's taps along one axis; outside of the input are zeros. */
export function taps(call, axis, place) {
  const start = place * call.stride[axis] - call.before[axis];
  return Array.from(
    { length: call.window[axis] },
    (_, tap) => start + tap * call.dilation[axis],
  );
}

/** Taps of a transposed convolution: o = i·S + k·D − before; null meets no pixel. */
export function spread(call, axis, place, size) {
  return Array.from({ length: call.window[axis] }, (_, tap) => {
    const from = place + call.before[axis] - tap * call.dilation[axis];
    const whole = from / call.stride[axis];
    return Number.isInteger(whole) && whole >= 0 && whole < size ? whole : null;
  });
}

// What lies under a window is gathered once for all filters; products with 0, which ReLU
// leaves often, are left out.
function convolution(call, [x], [given]) {
  const [height, width, channels] = given;
  const [rows, columns, filters] = extent(call.shape);
  const kernel = array(call.kernel);
  const bias = call.bias ? array(call.bias) : new Float32Array(filters);
  const share = channels / call.groups; // channels that a filter sees
  const each = filters / call.groups; // filters of a group
  const place = call.op === "transposed" ? spread : taps;
  const across = Array.from({ length: columns }, (_, c) => place(call, 1, c, width));
  const result = new Float32Array(rows * columns * filters);
  const size = call.window[0] * call.window[1] * share;
  const [patch, from] = [new Float64Array(size), new Int32Array(size)];
  for (let row = 0; row < rows; row++) {
    const down = place(call, 0, row, height);
    for (let column = 0; column < columns; column++) {
      const to = (row * columns + column) * filters;
      for (let g = 0; g < call.groups; g++) {
        let count = 0;
        for (let i = 0; i < call.window[0]; i++) {
          const r = down[i];
          if (r === null || r < 0 || r >= height) continue;
          for (let j = 0; j < call.window[1]; j++) {
            const c = across[column][j];
            if (c === null || c < 0 || c >= width) continue;
            const pixel = (r * width + c) * channels + g * share;
            const tap = (i * call.window[1] + j) * share;
            for (let k = 0; k < share; k++) {
              if (x[pixel + k] === 0) continue;
              patch[count] = x[pixel + k];
              from[count++] = (tap + k) * filters; // its weight for the first filter
            }
          }
        }
        sums(result, to, patch, from, count, kernel, bias, g * each, (g + 1) * each);
      }
    }
  }
  return activated(result, call.activation, filters);
}

// The sums of some filters over one patch, four at a time: so they stay in registers.
function sums(result, to, patch, from, count, kernel, bias, first, last) {
  let f = first;
  for (; f + 4 <= last; f += 4) {
    let [a, b, c, d] = [bias[f], bias[f + 1], bias[f + 2], bias[f + 3]];
    for (let n = 0; n < count; n++) {
      const value = patch[n];
      const at = from[n] + f;
      a += value * kernel[at];
      b += value * kernel[at + 1];
      c += value * kernel[at + 2];
      d += value * kernel[at + 3];
    }
    result[to + f] = a;
    result[to + f + 1] = b;
    result[to + f + 2] = c;
    result[to + f + 3] = d;
  }
  for (; f < last; f++) {
    let sum = bias[f];
    for (let n = 0; n < count; n++) sum += patch[n] * kernel[from[n] + f];
    result[to + f] = sum;
  }
}

function pool(call, [x], [[height, width, channels]]) {
  const [rows, columns] = extent(call.shape);
  const within = (axis, size) => (_, place) =>
    taps(call, axis, place).filter((p) => p >= 0 && p < size);
  const down = Array.from({ length: rows }, within(0, height));
  const across = Array.from({ length: columns }, within(1, width));
  const result = new Float32Array(rows * columns * channels);
  down.forEach((lines, row) =>
    across.forEach((places, column) => {
      for (let k = 0; k < channels; k++) {
        let sum = 0;
        let most = -Infinity;
        for (const r of lines) {
          for (const c of places) {
            const value = x[(r * width + c) * channels + k];
            sum += value;
            most = Math.max(most, value);
          }
        }
        const mean = sum / (lines.length * places.length);
        const at = (row * columns + column) * channels + k;
        result[at] = call.by === "max" ? most : mean;
      }
    }),
  );
  return result;
}

function affine(call, [x]) {
  const scale = array(call.scale);
  const bias = array(call.bias);
  return x.map((value, i) => value * scale[i % scale.length] + bias[i % bias.length]);
}

function layernorm(call, [x], [[, , channels]]) {
  const scale = array(call.scale);
  const bias = array(call.bias);
  const result = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += channels) {
    const part = x.subarray(start, start + channels);
    const mean = part.reduce((sum, v) => sum + v, 0) / channels;
    const variance = part.reduce((sum, v) => sum + (v - mean) ** 2, 0) / channels;
    const spreads = Math.sqrt(variance + call.epsilon);
    part.forEach((v, c) => {
      result[start + c] = ((v - mean) / spreads) * scale[c] + bias[c];
    });
  }
  return result;
}

function pad(call, [x], [[height, width, channels]]) {
  const [rows, columns] = extent(call.shape);
  const result = new Float32Array(rows * columns * channels);
  for (let row = 0; row < height; row++) {
    const line = x.subarray(row * width * channels, (row + 1) * width * channels);
    const at = (row + call.before[0]) * columns + call.before[1];
    result.set(line, at * channels);
  }
  return result;
}

function shortcut(call, [x], [[, width, channels]]) {
  const [rows, columns, filters] = extent(call.shape);
  const result = new Float32Array(rows * columns * filters);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const from = (row * call.stride * width + column * call.stride) * channels;
      const to = (row * columns + column) * filters;
      result.set(x.subarray(from, from + channels), to);
    }
  }
  return result;
}

function lrn(call, [x], [[, , channels]]) {
  const reach = Math.floor(call.size / 2);
  return x.map((value, i) => {
    const c = i % channels;
    let energy = 0;
    for (let k = Math.max(0, c - reach); k <= Math.min(channels - 1, c + reach); k++) {
      energy += x[i - c + k] ** 2;
    }
    return value * (call.kappa + (call.alpha / call.size) * energy) ** -call.beta;
  });
}

const MERGED = {
  add: (values) => values.reduce((a, b) => a + b),
  subtract: (values) => values.reduce((a, b) => a - b),
  multiply: (values) => values.reduce((a, b) => a * b),
  average: (values) => values.reduce((a, b) => a + b) / values.length,
  maximum: (values) => Math.max(...values),
  minimum: (values) => Math.min(...values),
};

function concatenate(call, xs, shapes) {
  const channels = extent(call.shape)[2];
  const result = new Float32Array(call.shape.reduce((a, b) => a * b));
  let first = 0;
  xs.forEach((x, n) => {
    const own = shapes[n][2];
    for (let pixel = 0; pixel * own < x.length; pixel++) {
      const part = x.subarray(pixel * own, (pixel + 1) * own);
      result.set(part, pixel * channels + first);
    }
    first += own;
  });
  return result;
}

const OPERATIONS = {
  affine,
  concatenate,
  convolution,
  layernorm,
  lrn,
  pad,
  pool,
  shortcut,
  transposed: convolution,
  same: (call, [x]) => x,
  activation: (call, [x]) =>
    activated(x, call.activation, extent(call.shape)[2], call.slope),
  merge: (call, xs) => xs[0].map((_, i) => MERGED[call.by](xs.map((x) => x[i]))),
};

/** The shape that a call is given as its n-th input: [height, width, channels]. */
export function givenShape(data, call, n = 0) {
  const from = call.inputs[n];
  return extent(from < 0 ? data.shape : data.calls[from].shape);
}

/** Run a network on pixels: the values of every call, in their order. */
export function run(data, pixels) {
  const image = Float32Array.from(pixels);
  const values = [];
  const stays = frozen(data);
  data.calls.forEach((call, number) => {
    const given = call.inputs.map((n) => (n < 0 ? image : values[n]));
    const shapes = call.inputs.map((_, n) => givenShape(data, call, n));
    const worked = () => OPERATIONS[call.op](call, given, shapes);
    values.push(stays[number] ? array(call.keras) : worked());
  });
  return { image, values };
}

/** Of each call, whether another image leaves it as it was recorded. */
export function frozen(data) {
  const held = [];
  data.calls.forEach((call) => {
    const behind = call.inputs.some((n) => n >= 0 && held[n]);
    held.push(call.op === "recorded" || behind);
  });
  return held;
}
