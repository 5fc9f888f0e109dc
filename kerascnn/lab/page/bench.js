// The bench: one filter, moved by hand; begins at the slide's sum of 4.

import { written } from "./arrays.js";

const IMAGE = [
  [1, 1, 0, 0, 0],
  [0, 1, 1, 0, 0],
  [0, 0, 1, 1, 0],
  [0, 0, 0, 1, 1],
  [1, 0, 0, 0, 1],
];
const FILTERS = {
  "the slide's 강의": [
    [1, 0, 0],
    [0, 1, 1],
    [1, 0, 1],
  ],
  "diagonal 대각선": [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ],
  "upright edge 세로 경계": [
    [1, 0, -1],
    [1, 0, -1],
    [1, 0, -1],
  ],
  "level edge 가로 경계": [
    [1, 1, 1],
    [0, 0, 0],
    [-1, -1, -1],
  ],
  "blur 흐림": Array.from({ length: 3 }, () => [0.111, 0.111, 0.111]),
  "5×5 blur": Array.from({ length: 5 }, () => [0.04, 0.04, 0.04, 0.04, 0.04]),
};

/** How a window lies along an axis: places, zeros before and after, what is left. */
export function placed(size, window, stride, padding, dilation) {
  const reach = dilation * (window - 1) + 1;
  let [before, after] = [0, 0];
  if (padding === "same") {
    const missing = Math.max(0, (Math.ceil(size / stride) - 1) * stride + reach - size);
    before = Math.floor(missing / 2);
    after = missing - before;
  } else if (padding !== "valid") {
    before = after = Number(padding);
  }
  const space = size + before + after - reach;
  const count = space < 0 ? 0 : Math.floor(space / stride) + 1;
  const left = space < 0 ? size + before + after : space % stride;
  return { size, window, reach, stride, before, after, space, count, left };
}

/** The formula of the output's size with its numbers. */
export function explained(axis) {
  const { size, before, after, reach, stride, space, count, left } = axis;
  if (space < 0) {
    const wide = size + before + after;
    return `A window of ${reach} does not fit into ${wide} pixels`;
  }
  const zeros = before === after ? `2·${before}` : `(${before} + ${after})`;
  const text = `(${size} + ${zeros} − ${reach})/${stride} + 1 = `;
  if (!left) return `${text}${count}`;
  const exact = String(Number((space / stride + 1).toFixed(2)));
  return `${text}${exact}, rounded down to ${count}: this stride does not fit, ${left} left over`;
}

/** Slide a filter over an image: rows of sums. */
export function slid(image, filter, down, across, dilation) {
  return Array.from({ length: down.count }, (_, row) =>
    Array.from({ length: across.count }, (__, column) =>
      terms(image, filter, down, across, dilation, row, column).reduce(
        (sum, { value, weight }) => sum + value * weight,
        0,
      ),
    ),
  );
}

function terms(image, filter, down, across, dilation, row, column) {
  return filter.flatMap((line, i) =>
    line.map((weight, j) => {
      const r = row * down.stride - down.before + i * dilation;
      const c = column * across.stride - across.before + j * dilation;
      return { r, c, weight, value: image[r]?.[c] ?? 0 };
    }),
  );
}

const get = (id) => document.getElementById(id);

/** Make the bench work. */
export function bench() {
  const image = Array.from({ length: 7 }, (_, r) =>
    Array.from({ length: 7 }, (__, c) => IMAGE[r]?.[c] ?? 0),
  );
  let size = 5;
  let filter = Object.values(FILTERS)[0].map((line) => [...line]);
  let place = [0, 0];
  let playing = 0;
  let filled = Infinity; // windows whose sums are shown

  const presets = get("preset");
  for (const name of Object.keys(FILTERS)) presets.add(new Option(name));

  function table(target, rows, columns, cell) {
    const made = document.createElement("table");
    for (let r = 0; r < rows; r++) {
      const line = made.insertRow();
      for (let c = 0; c < columns; c++) cell(line.insertCell(), r, c);
    }
    target.replaceChildren(made);
  }

  function showFilter() {
    table(get("bench-filter"), filter.length, filter.length, (box, i, j) => {
      const field = document.createElement("input");
      field.type = "number";
      field.step = "any";
      field.value = filter[i][j];
      field.setAttribute("aria-label", `weight, row ${i}, column ${j}`);
      field.addEventListener("input", () => {
        filter[i][j] = Number(field.value) || 0;
        show();
      });
      box.append(field);
    });
  }

  function show(focus) {
    const [stride, dilation] = ["stride", "dilation"].map((id) =>
      Number(get(id).value),
    );
    const padding = get("padding").value;
    const picture = image.slice(0, size).map((line) => line.slice(0, size));
    const axis = placed(size, filter.length, stride, padding, dilation);
    const map = slid(picture, filter, axis, axis, dilation);
    place = place.map((p) => Math.max(0, Math.min(axis.count - 1, p)));
    const met = axis.count
      ? terms(picture, filter, axis, axis, dilation, ...place)
      : [];
    const end = size + axis.after - axis.left; // from here on nothing is read
    table(
      get("bench-image"),
      size + axis.before + axis.after,
      size + axis.before + axis.after,
      (box, i, j) => {
        const [r, c] = [i - axis.before, j - axis.before];
        const inside = r >= 0 && c >= 0 && r < size && c < size;
        if (inside) {
          const button = document.createElement("button");
          button.type = "button";
          button.textContent = picture[r][c];
          button.setAttribute("aria-label", `pixel ${r}, ${c}: ${picture[r][c]}`);
          button.addEventListener("click", () => {
            image[r][c] = 1 - image[r][c];
            show(`[aria-label^="pixel ${r}, ${c}:"]`);
          });
          box.append(button);
        } else {
          box.textContent = "0";
        }
        const seen = met.some((term) => term.r === r && term.c === c);
        box.className = [
          inside ? (picture[r][c] ? "one" : "none") : "zero",
          seen ? "seen" : "",
          r >= end || c >= end ? "unread" : "",
        ].join(" ");
      },
    );
    const limit = Math.max(1e-9, ...map.flat().map(Math.abs));
    table(get("bench-map"), axis.count, axis.count, (box, r, c) => {
      const button = document.createElement("button");
      const there = r * axis.count + c < filled;
      button.type = "button";
      button.textContent = there ? written(map[r][c], 3) : "";
      button.setAttribute("aria-label", `sum ${r}, ${c}: ${button.textContent}`);
      button.addEventListener("click", () => {
        place = [r, c];
        filled = Infinity;
        show(`[aria-label^="sum ${r}, ${c}:"]`);
      });
      const share = there ? Math.abs(map[r][c]) / limit : 0;
      box.style.setProperty("--share", `${Math.round(70 * share)}%`);
      box.className = map[r][c] < 0 ? "minus" : "plus";
      if (r === place[0] && c === place[1]) box.classList.add("chosen");
      box.append(button);
    });
    get("bench-size").textContent = explained(axis);
    get("bench-size").classList.toggle("problem", axis.left > 0);
    const sum = axis.count ? map[place[0]][place[1]] : 0;
    const written_ = met.map(({ value, weight }) => `${value}·${written(weight, 3)}`);
    get("bench-sum").textContent = axis.count
      ? `${written_.join(" + ")} = ${written(sum)}`
      : "";
    if (focus) document.querySelector(`#bench ${focus}`)?.focus();
  }

  function play() {
    clearInterval(playing);
    filled = 0;
    playing = setInterval(() => {
      const count = get("bench-map").querySelectorAll("tr").length;
      if (filled >= count * count) {
        clearInterval(playing);
        filled = Infinity;
        return;
      }
      place = [Math.floor(filled / count), filled % count];
      filled += 1;
      show();
    }, 450);
  }

  presets.addEventListener("change", () => {
    filter = FILTERS[presets.value].map((line) => [...line]);
    showFilter();
    show();
  });
  for (const id of ["stride", "padding", "dilation"]) {
    get(id).addEventListener("change", () => show());
  }
  get("bench-pixels").addEventListener("change", () => {
    size = Number(get("bench-pixels").value);
    show();
  });
  get("play").addEventListener("click", play);
  showFilter();
  show();
}
