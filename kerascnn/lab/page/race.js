// The race: a small CNN against an MLP, trained in this page, and what they learn.

import { counted } from "./arrays.js";
import { element } from "./cell.js";
import { drawImage } from "./strip.js";

const NAMES = ["CNN", "MLP"];
const SEEDS = 1000; // of races
const EPOCHS = 25;
const SIDE = 16; // pixels of an image's sides

function svg(tag, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

/** Draw the accuracies so far as two lines, 0 to 100 %. */
function curves(target, history, epochs) {
  const [wide, high, left] = [520, 240, 44];
  const x = (n) => left + ((wide - left - 60) * n) / epochs;
  const y = (share) => 10 + (high - 40) * (1 - share);
  const parts = [0, 0.2, 0.5, 1].flatMap((share) => [
    svg("line", { x1: left, x2: x(epochs), y1: y(share), y2: y(share), class: "rule" }),
    svg(
      "text",
      { x: left - 6, y: y(share) + 5, "text-anchor": "end" },
      `${100 * share}`,
    ),
  ]);
  parts.push(
    svg(
      "text",
      { x: left, y: high - 6 },
      `% of 300 other images, over ${epochs} epochs`,
    ),
  );
  NAMES.forEach((name, n) => {
    const points = history.map(({ told }, epoch) => [x(epoch), y(told[n].accuracy)]);
    if (!points.length) return;
    const lines = points
      .map((point) => point.map((v) => v.toFixed(1)).join(","))
      .join(" ");
    parts.push(svg("polyline", { points: lines, class: `curve ${name}` }));
    const [end, height] = points.at(-1);
    parts.push(svg("text", { x: end + 6, y: height + 5, class: name }, name));
  });
  target.setAttribute("viewBox", `0 0 ${wide} ${high}`);
  target.replaceChildren(...parts);
}

/** Draw weights of `many` units, side×side each, grey for 0. */
function pictures(target, weights, side, many, units) {
  const limit = weights.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
  const made = Array.from({ length: many }, (_, k) => {
    const canvas = document.createElement("canvas");
    const pixels = Uint8Array.from({ length: side * side }, (__, i) => {
      return 128 + Math.round((127 * weights[i * units + k]) / limit);
    });
    drawImage(canvas, pixels, [side, side, 1]);
    return canvas;
  });
  target.replaceChildren(...made);
}

/** Make the race work. */
export function racing() {
  const get = (id) => document.getElementById(id);
  // A worker of a file's page may be no module, so that it exports nothing.
  const text = get("training").textContent.replace(/^export /gm, "");
  const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  let worker = null;
  let runs = 0;

  /** Show what both are given: two images of each class. */
  function preview() {
    const drawing = new Worker(address);
    drawing.addEventListener("message", ({ data: { x, names } }) => {
      drawing.terminate();
      const figures = names.map((name, k) => {
        const figure = element("figure", "", "example");
        for (const n of [k, k + names.length]) {
          const picture = document.createElement("canvas");
          const values = x.subarray(n * SIDE * SIDE, (n + 1) * SIDE * SIDE);
          const pixels = Uint8ClampedArray.from(values, (v) => 255 * (v + 0.5));
          drawImage(picture, pixels, [SIDE, SIDE, 1]);
          figure.append(picture);
        }
        figure.append(element("figcaption", name));
        return figure;
      });
      get("race-examples").replaceChildren(...figures);
    });
    drawing.postMessage({ permute: get("race-permute").checked });
  }

  function stop() {
    worker?.terminate();
    worker = null;
    get("race-start").textContent = "Start";
  }

  function start() {
    const history = [];
    const [labels, epochs] = [Number(get("race-labels").value), EPOCHS];
    runs += 1;
    worker = new Worker(address);
    get("race-start").textContent = "Stop";
    worker.addEventListener("error", () => {
      stop();
      get("race-epoch").textContent = "this browser allows the page no worker";
    });
    worker.addEventListener("message", ({ data }) => {
      history.push(data);
      curves(get("race-curves"), history, epochs);
      pictures(get("race-cnn"), data.told[0].filters, 3, 8, 8);
      pictures(get("race-mlp"), data.told[1].filters, SIDE, 8, 32);
      const lines = data.told.map((told, n) => {
        const share = `${(100 * told.accuracy).toFixed(1)} %`;
        const cost = `${counted(told.weights)} weights, ${told.seconds.toFixed(1)} s`;
        return element("li", `${NAMES[n]}: ${share} (${cost})`, NAMES[n]);
      });
      get("race-told").replaceChildren(...lines);
      get("race-epoch").textContent = `epoch 에폭 ${data.epoch} of ${data.epochs}`;
      if (data.epoch === data.epochs) stop();
    });
    const permute = get("race-permute").checked;
    worker.postMessage({ labels, permute, epochs, seed: (runs * 17) % SEEDS });
  }

  get("race-labels").addEventListener("input", () => {
    get("race-labels-told").textContent = get("race-labels").value;
  });
  get("race-start").addEventListener("click", () => (worker ? stop() : start()));
  get("race-permute").addEventListener("input", preview);
  curves(get("race-curves"), [], EPOCHS);
  preview();
}
