// The own image: samples, a file, a brush, the camera; and the answers to it.

import { array, written } from "./arrays.js";
import { fitted } from "./resize.js";
import { drawImage } from "./strip.js";

function canvasOf(source, width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // what transparency becomes
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0, width, height);
  return canvas;
}

/** Offer the ways to an image; `take(pixels, name, number)` gets what was chosen. */
export function offer(data, take, problem) {
  const list = document.getElementById("samples");
  data.samples.forEach((sample, number) => {
    const button = document.createElement("button");
    const picture = document.createElement("canvas");
    button.type = "button";
    button.setAttribute("aria-label", `sample: ${sample.name}`);
    drawImage(picture, array(sample.pixels), data.shape);
    button.append(picture);
    button.addEventListener("click", () =>
      take(array(sample.pixels), sample.name, number),
    );
    list.append(button);
  });
  if (data.labels && !data.samples.some(({ name }) => data.labels.includes(name))) {
    const foreign = document.getElementById("foreign");
    foreign.hidden = false;
    foreign.textContent =
      "The samples are drawn shapes. This network has learned other classes, " +
      `and can only say ${data.labels.slice(0, 10).join(", ")}` +
      (data.labels.length > 10 ? ", …" : ".");
  }
  const read = async (file) => {
    try {
      const picture = await createImageBitmap(file);
      const canvas = canvasOf(picture, picture.width, picture.height);
      take(fitted(canvas, data.shape), file.name, null);
    } catch {
      problem(
        `${file.name} is no image that this browser reads: give a JPEG or PNG file`,
      );
    }
  };
  const chosen = document.getElementById("file");
  chosen.addEventListener("change", () => chosen.files[0] && read(chosen.files[0]));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) read(file);
  });
  film(data, take, problem);
}

/** The camera: one picture when asked; it is off again at once. */
function film(data, take, problem) {
  const button = document.getElementById("camera");
  if (!navigator.mediaDevices?.getUserMedia) {
    button.hidden = true;
    return;
  }
  const video = document.getElementById("video");
  button.addEventListener("click", async () => {
    if (video.srcObject) {
      const canvas = canvasOf(video, video.videoWidth, video.videoHeight);
      video.srcObject.getTracks().forEach((track) => track.stop());
      [video.srcObject, video.hidden, button.textContent] = [null, true, "Camera"];
      take(fitted(canvas, data.shape), "camera", null);
      return;
    }
    button.disabled = true; // until it is decided: two clicks would film twice
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
      video.hidden = false;
      await video.play();
      button.textContent = "Take the picture";
    } catch {
      problem("The camera is not there, or the browser was not allowed to use it");
    }
    button.disabled = false;
  });
}

/** Let the image be painted on: `paint(x, y)` is called with pixels of the image. */
export function brush(canvas, data, current, take) {
  const tool = document.getElementById("brush");
  let painting = false;
  const stroke = (event) => {
    const box = canvas.getBoundingClientRect();
    const [height, width, channels] = data.shape;
    const x = Math.floor(((event.clientX - box.left) / box.width) * width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * height);
    const wide = Math.max(1, Math.round(width / 24));
    const pixels = Uint8Array.from(current());
    const hex = document.getElementById("colour").value;
    const paint = [1, 3, 5].map((n) => parseInt(hex.slice(n, n + 2), 16));
    for (
      let r = Math.max(0, y - wide + 1);
      r <= Math.min(height - 1, y + wide - 1);
      r++
    ) {
      for (
        let c = Math.max(0, x - wide + 1);
        c <= Math.min(width - 1, x + wide - 1);
        c++
      ) {
        for (let k = 0; k < channels; k++)
          pixels[(r * width + c) * channels + k] = paint[k];
      }
    }
    take(pixels, "drawing", null);
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (!tool.checked) return;
    painting = true;
    canvas.setPointerCapture(event.pointerId);
    stroke(event);
  });
  canvas.addEventListener("pointermove", (event) => painting && stroke(event));
  canvas.addEventListener("pointerup", () => (painting = false));
  document.getElementById("blank").addEventListener("click", () => {
    take(new Uint8Array(data.shape.reduce((a, b) => a * b)).fill(255), "drawing", null);
  });
}

/** Show the best answers as bars, and how long they took. */
export function answer(target, data, values, milliseconds) {
  const best = [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, 5);
  const sum = values.reduce((a, b) => a + b, 0);
  const shares = Math.abs(sum - 1) < 1e-3 && Math.min(...values) >= 0;
  const most = Math.abs(values[best[0]]) || 1;
  const items = best.map((k) => {
    const item = document.createElement("li");
    const name = document.createElement("span");
    const number = document.createElement("span");
    const bar = document.createElement("span");
    name.textContent = data.labels?.[k] ?? `class ${k}`;
    number.textContent = shares
      ? `${(100 * values[k]).toFixed(1)} %`
      : written(values[k]);
    bar.className = "bar plus";
    const share = shares ? values[k] : Math.max(0, values[k] / most);
    bar.style.setProperty("width", `${Math.max(0.5, 100 * share)}%`);
    item.append(name, number, bar);
    return item;
  });
  target.replaceChildren(...items);
  document.getElementById("time").textContent =
    `${Math.max(1, Math.round(milliseconds))} ms in ${data.served ? "Python" : "this page"}`;
}
