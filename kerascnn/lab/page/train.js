// Two networks trained from nothing, in a worker: a small CNN, and an MLP on the pixels.
// Nothing here knows the page, nor any library.

export const SIDE = 16; // pixels of an image's sides
export const CLASSES = ["cross", "ring", "square", "triangle", "hourglass"];

/** Random numbers of a seed, below 1: a linear congruence, mixed. */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function normal(next) {
  const radius = Math.sqrt(-2 * Math.log(1 - next()));
  return radius * Math.cos(2 * Math.PI * next());
}

/** Whether a point lies in a shape of about the area 1 around 0, 0. */
function inside(label, x, y) {
  const [a, b] = [Math.abs(x), Math.abs(y)];
  if (label === 0) return Math.min(a, b) < 0.19 && Math.max(a, b) < 0.72;
  if (label === 1) return Math.abs(Math.hypot(x, y) - 0.53) < 0.15;
  if (label === 2) return Math.max(a, b) < 0.5;
  if (label === 3) return y < 0.55 && a < (y + 0.95) * 0.5;
  return b < 0.72 && a < 0.1 + b * 0.82;
}

/** Draw images, lighter or darker than their ground, anywhere: { x, y }, x below 1. */
export function draw(count, seed) {
  const next = random(seed);
  const x = new Float32Array(count * SIDE * SIDE);
  const y = new Uint8Array(count);
  for (let n = 0; n < count; n++) {
    y[n] = n % CLASSES.length;
    const ground = 0.2 + 0.6 * next();
    const contrast = 0.25 + 0.2 * next();
    const up = ground < 0.45 || (ground < 0.55 && next() < 0.5);
    const size = 6.5 + 1.5 * next();
    const [left, top] = [8 + 8 * (next() - 0.5), 8 + 8 * (next() - 0.5)];
    for (let r = 0; r < SIDE; r++) {
      for (let c = 0; c < SIDE; c++) {
        let met = 0; // of nine points of the pixel
        for (let i = 0; i < 9; i++) {
          const [dx, dy] = [(i % 3) / 3 + 1 / 6, Math.floor(i / 3) / 3 + 1 / 6];
          if (inside(y[n], (c + dx - left) / size, (r + dy - top) / size)) met++;
        }
        const colour = ground + ((up ? contrast : -contrast) * met) / 9;
        x[(n * SIDE + r) * SIDE + c] = colour + 0.03 * normal(next) - 0.5;
      }
    }
  }
  return { x, y };
}

/** A dense layer: out = x · W + b. */
export function dense(inputs, units, next) {
  const scale = Math.sqrt(2 / inputs);
  const w = Float32Array.from({ length: inputs * units }, () => scale * normal(next));
  const [b, dw, db] = [units, inputs * units, units].map((n) => new Float32Array(n));
  let given = null;
  return {
    parts: [
      [w, dw],
      [b, db],
    ],
    forward(x) {
      given = x;
      const out = Float32Array.from(b);
      for (let i = 0; i < inputs; i++) {
        if (x[i] === 0) continue;
        for (let k = 0; k < units; k++) out[k] += x[i] * w[i * units + k];
      }
      return out;
    },
    backward(d) {
      const back = new Float32Array(inputs);
      for (let i = 0; i < inputs; i++) {
        let sum = 0;
        for (let k = 0; k < units; k++) {
          sum += d[k] * w[i * units + k];
          dw[i * units + k] += d[k] * given[i];
        }
        back[i] = sum;
      }
      for (let k = 0; k < units; k++) db[k] += d[k];
      return back;
    },
  };
}

/** A 3x3 convolution with padding "same" on maps (side, side, channels). */
export function convolution(side, channels, filters, next) {
  const scale = Math.sqrt(2 / (9 * channels));
  const size = 9 * channels * filters;
  const w = Float32Array.from({ length: size }, () => scale * normal(next));
  const [b, dw, db] = [filters, size, filters].map((n) => new Float32Array(n));
  let given = null;
  // Of each tap of the window the rows, and columns, at which it meets a pixel.
  const from = (shift) => Math.max(0, -shift);
  const to = (shift) => Math.min(side, side - shift);
  return {
    filters: w,
    parts: [
      [w, dw],
      [b, db],
    ],
    forward(x) {
      given = x;
      const out = new Float32Array(side * side * filters);
      for (let i = 0; i < out.length; i += filters) out.set(b, i);
      for (let tap = 0; tap < 9; tap++) {
        const [down, right] = [Math.floor(tap / 3) - 1, (tap % 3) - 1];
        for (let r = from(down); r < to(down); r++) {
          for (let c = from(right); c < to(right); c++) {
            const pixel = ((r + down) * side + c + right) * channels;
            const place = (r * side + c) * filters;
            for (let k = 0; k < channels; k++) {
              const value = x[pixel + k];
              if (value === 0) continue;
              const weights = (tap * channels + k) * filters;
              for (let f = 0; f < filters; f++)
                out[place + f] += value * w[weights + f];
            }
          }
        }
      }
      return out;
    },
    backward(d) {
      const back = new Float32Array(given.length);
      for (let tap = 0; tap < 9; tap++) {
        const [down, right] = [Math.floor(tap / 3) - 1, (tap % 3) - 1];
        for (let r = from(down); r < to(down); r++) {
          for (let c = from(right); c < to(right); c++) {
            const pixel = ((r + down) * side + c + right) * channels;
            const place = (r * side + c) * filters;
            for (let f = 0; f < filters; f++) {
              const slope = d[place + f];
              if (slope === 0) continue; // pooling hands few of them on
              for (let k = 0; k < channels; k++) {
                const at = (tap * channels + k) * filters + f;
                dw[at] += slope * given[pixel + k];
                back[pixel + k] += slope * w[at];
              }
            }
          }
        }
      }
      for (let i = 0; i < d.length; i++) db[i % filters] += d[i];
      return back;
    },
  };
}

export function relu() {
  let out = null;
  return {
    parts: [],
    forward: (x) => (out = x.map((v) => Math.max(0, v))),
    backward: (d) => d.map((v, i) => (out[i] > 0 ? v : 0)),
  };
}

/** Windows of size pixels, side by side, of which the greatest value remains. */
export function pool(side, channels, size) {
  const small = side / size;
  const place = Int32Array.from({ length: side * side * channels }, (_, i) => {
    const [pixel, k] = [Math.floor(i / channels), i % channels];
    const row = Math.floor(Math.floor(pixel / side) / size);
    return (row * small + Math.floor((pixel % side) / size)) * channels + k;
  });
  const from = new Int32Array(small * small * channels);
  return {
    parts: [],
    forward(x) {
      const out = new Float32Array(from.length).fill(-Infinity);
      for (let i = 0; i < x.length; i++) {
        if (x[i] > out[place[i]]) {
          out[place[i]] = x[i];
          from[place[i]] = i;
        }
      }
      return out;
    },
    backward(d) {
      const back = new Float32Array(place.length);
      for (let i = 0; i < d.length; i++) back[from[i]] += d[i];
      return back;
    },
  };
}

/** The CNN: two convolutions, the greatest of each last map, and one dense layer. */
export function cnn(next) {
  return [
    convolution(16, 1, 8, next),
    relu(),
    pool(16, 8, 2),
    convolution(8, 8, 12, next),
    relu(),
    pool(8, 12, 8),
    dense(12, CLASSES.length, next),
  ];
}

/** The MLP: 32 hidden units that see all pixels. */
export function mlp(next) {
  return [dense(SIDE * SIDE, 32, next), relu(), dense(32, CLASSES.length, next)];
}

export const forward = (layers, x) => layers.reduce((v, layer) => layer.forward(v), x);

/** Probabilities, and the gradient of the cross-entropy by the sums before them. */
export function loss(sums, label) {
  const most = Math.max(...sums);
  const powers = Array.from(sums, (v) => Math.exp(v - most));
  const total = powers.reduce((a, b) => a + b, 0);
  const d = Float32Array.from(powers, (p, k) => p / total - (k === label ? 1 : 0));
  return { value: -Math.log(powers[label] / total), d };
}

/** Adam (Kingma and Ba, 2015) for the weights of layers. */
export function adam(layers, rate = 0.005) {
  const parts = layers.flatMap((layer) => layer.parts);
  const means = parts.map(([w]) => [
    new Float32Array(w.length),
    new Float32Array(w.length),
  ]);
  let step = 0;
  return (count) => {
    step += 1;
    const [one, two] = [1 - 0.9 ** step, 1 - 0.999 ** step];
    parts.forEach(([w, d], n) => {
      const [m, v] = means[n];
      for (let i = 0; i < w.length; i++) {
        const slope = d[i] / count;
        m[i] = 0.9 * m[i] + 0.1 * slope;
        v[i] = 0.999 * v[i] + 0.001 * slope * slope;
        w[i] -= (rate * (m[i] / one)) / (Math.sqrt(v[i] / two) + 1e-7);
        d[i] = 0;
      }
    });
  };
}

const image = (x, n) => x.subarray(n * SIDE * SIDE, (n + 1) * SIDE * SIDE);

/** The share of images that layers name rightly. */
export function accuracy(layers, { x, y }) {
  let right = 0;
  y.forEach((label, n) => {
    const sums = forward(layers, image(x, n));
    right += sums.indexOf(Math.max(...sums)) === label;
  });
  return right / y.length;
}

/** One pass over the images, in batches of 10. */
export function epoch(layers, update, { x, y }, next) {
  const order = Array.from(y.keys());
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  let sum = 0;
  for (let start = 0; start < order.length; start += 10) {
    const batch = order.slice(start, start + 10);
    for (const n of batch) {
      const { value, d } = loss(forward(layers, image(x, n)), y[n]);
      sum += value;
      layers.reduceRight((slope, layer) => layer.backward(slope), d);
    }
    update(batch.length);
  }
  return sum / order.length;
}

/** Put the pixels of all images in the same other order. */
export function shuffled({ x, y }, seed) {
  const next = random(seed);
  const places = Array.from({ length: SIDE * SIDE }, (_, i) => i);
  for (let i = places.length - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [places[i], places[j]] = [places[j], places[i]];
  }
  const size = places.length;
  return { x: x.map((_, i) => x[Math.floor(i / size) * size + places[i % size]]), y };
}

/** Train both for some epochs; `tell` gets how far they are after each. */
export function race({ labels, permute, epochs, seed }, tell) {
  const keep = (images) => (permute ? shuffled(images, 99) : images);
  const [train, test] = [keep(draw(labels, 2 * seed)), keep(draw(300, 2 * seed + 1))];
  const racers = [cnn(random(seed + 7)), mlp(random(seed + 8))].map((layers) => {
    return { layers, update: adam(layers), next: random(seed + 9), seconds: 0 };
  });
  for (let n = 0; n <= epochs; n++) {
    const told = racers.map((racer) => {
      const start = performance.now();
      const value = n ? epoch(racer.layers, racer.update, train, racer.next) : null;
      racer.seconds += (performance.now() - start) / 1000;
      const { layers } = racer;
      const weights = layers.flatMap(({ parts }) => parts.map(([w]) => w.length));
      return {
        loss: value,
        accuracy: accuracy(layers, test),
        seconds: racer.seconds,
        weights: weights.reduce((a, b) => a + b, 0),
        filters: Array.from(layers[0].parts[0][0]),
      };
    });
    tell({ epoch: n, epochs, told });
  }
}

/** Two images of each class as a race has them, and the names of the classes. */
export function examples(permute) {
  const images = draw(2 * CLASSES.length, 1);
  return { x: (permute ? shuffled(images, 99) : images).x, names: CLASSES };
}

// In a worker, whose only page is the one that made it.
if (typeof WorkerGlobalScope !== "undefined") {
  addEventListener("message", ({ data }) => {
    if (data.epochs) race(data, (told) => postMessage(told));
    else postMessage(examples(data.permute));
  });
}
