// Images, brought to a network's size as Pillow does it: bicubic, with antialiasing.

function bicubic(x) {
  const a = -0.5;
  const z = Math.abs(x);
  if (z < 1) return ((a + 2) * z - (a + 3)) * z * z + 1;
  if (z < 2) return (((z - 5) * z + 8) * z - 4) * a;
  return 0;
}

/** Of each new pixel, the first old one and the weights of those from there on. */
function weights(size, from, to, wanted) {
  const scale = (to - from) / wanted;
  const wide = Math.max(scale, 1);
  return Array.from({ length: wanted }, (_, n) => {
    const centre = from + (n + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - 2 * wide + 0.5));
    const last = Math.min(size, Math.floor(centre + 2 * wide + 0.5));
    const values = [];
    for (let p = first; p < last; p++) values.push(bicubic((p - centre + 0.5) / wide));
    const sum = values.reduce((a, b) => a + b, 0);
    return { first, values: values.map((v) => v / sum) };
  });
}

const pixel = (value) => Math.max(0, Math.min(255, Math.round(value)));

/** Resize the window [left, top, right, bottom] of pixels (height, width, channels). */
export function resized(pixels, height, width, channels, box, rows, columns) {
  const across = weights(width, box[0], box[2], columns);
  const down = weights(height, box[1], box[3], rows);
  // Rows first, rounded to pixels between the two steps, as Pillow does.
  const between = new Uint8Array(height * columns * channels);
  for (let row = 0; row < height; row++) {
    across.forEach(({ first, values }, column) => {
      for (let k = 0; k < channels; k++) {
        let sum = 0;
        values.forEach((weight, n) => {
          sum += weight * pixels[(row * width + first + n) * channels + k];
        });
        between[(row * columns + column) * channels + k] = pixel(sum);
      }
    });
  }
  const result = new Uint8Array(rows * columns * channels);
  down.forEach(({ first, values }, row) => {
    for (let i = 0; i < columns * channels; i++) {
      let sum = 0;
      values.forEach((weight, n) => {
        sum += weight * between[(first + n) * columns * channels + i];
      });
      result[row * columns * channels + i] = pixel(sum);
    }
  });
  return result;
}

/** The largest window of the wanted proportions, from the centre. */
export function centred(height, width, rows, columns) {
  const wide = Math.min(width, (height * columns) / rows);
  const high = Math.min(height, (width * rows) / columns);
  const left = (width - wide) / 2;
  const top = (height - high) / 2;
  return [left, top, left + wide, top + high];
}

/** Pixels of a canvas for a network: (rows, columns, channels), 1 being grey. */
export function fitted(canvas, [rows, columns, channels]) {
  const { width, height } = canvas;
  const source = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const own = channels === 1 ? 1 : channels;
  const given = new Uint8Array(width * height * own);
  for (let i = 0; i < width * height; i++) {
    const p = 4 * i;
    // ITU-R BT.601
    if (own === 1)
      given[i] = pixel(
        0.299 * source[p] + 0.587 * source[p + 1] + 0.114 * source[p + 2],
      );
    else for (let k = 0; k < own; k++) given[i * own + k] = source[p + k];
  }
  const box = centred(height, width, rows, columns);
  return resized(given, height, width, own, box, rows, columns);
}
