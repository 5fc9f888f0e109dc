// The page of the server: an image goes to each network, its answer comes back as bars.
// Everything is fetched from this server, at addresses relative to the page.

const SHOWN = 5; // classes of an answer
const SMALL = 128; // pixels; smaller images are shown with their pixels

const at = (id) => document.getElementById(id);
const url = (path) => new URL(path, document.baseURI).href;
const percent = (value) => `${(100 * value).toFixed(1)}%`;

/** Make an element: its attributes, its text or children. Text is never markup. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function say(text) {
  at("status").textContent = text;
}

function complain(text) {
  at("problem").textContent = text;
  at("problem").hidden = !text;
}

/** Fetch JSON; an error says in words what went wrong. */
async function fetchJSON(path, options) {
  let response, text;
  try {
    response = await fetch(url(path), options);
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. Is it still running?");
  }
  let answer = null;
  try {
    answer = JSON.parse(text);
  } catch {
    // Not JSON: the status has to say it.
  }
  if (!response.ok || answer === null) {
    const reason = answer?.error ?? `it answered with the status ${response.status}`;
    const wait = response.headers.get("Retry-After");
    const busy = response.status === 429 || response.status === 503;
    throw new Error(
      busy ? `The server is busy; try again${wait ? ` in ${wait} s` : ""}. (${reason})`
        : `The server refused: ${reason}`,
    );
  }
  return answer;
}

// Networks

let networks = [];

async function loadNetworks() {
  networks = (await fetchJSON("page/models")).models;
  const off = new Set(
    [...document.querySelectorAll("#networks input:not(:checked):enabled")].map((box) => box.value),
  );
  const list = networks.map((network) => {
    const box = make("input", { type: "checkbox", value: network.name });
    box.checked = network.files && !off.has(network.name);
    box.disabled = !network.files;
    const [height, width, channels] = network.input;
    const takes = network.files
      ? `${height} × ${width}`
      : `takes arrays of ${channels} channels only, no files`;
    const detail = make("span", { class: "hint" }, `version ${network.version}, ${takes}`);
    return make("li", {}, make("label", {}, box, make("span", {}, network.name, " ", detail)));
  });
  at("networks").replaceChildren(...list);
  if (!networks.length) {
    at("networks").append(
      make("li", {}, "None is loaded yet. Export one into the folder of this server."),
    );
  }
}

function chosen() {
  const on = new Set(
    [...document.querySelectorAll("#networks input:checked")].map((box) => box.value),
  );
  return networks.filter((network) => on.has(network.name));
}

// Images

/** Return the base64 of a Blob. */
function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("The file cannot be read."));
    reader.readAsDataURL(blob);
  });
}

async function isImage(blob) {
  const [a, b, c, d] = new Uint8Array(await blob.slice(0, 4).arrayBuffer());
  return (a === 0xff && b === 0xd8) || (a === 0x89 && b === 0x50 && c === 0x4e && d === 0x47);
}

/** Quote a text for a POSIX shell. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Return the command that sends the same request. */
function curl(image, network) {
  return (
    `{ printf '{"signature_name":"serve_bytes","instances":[{"b64":"'; ${image.command}` +
    ` | base64 | tr -d '\\n'; printf '"}]}'; } | curl --data-binary @-` +
    ` --header 'Content-Type: application/json' ${quoted(url(path(network)))}`
  );
}

const path = (network) => `v1/models/${encodeURIComponent(network.name)}:predict`;

let shown = null; // the address of the preview, to be released

function show(image) {
  if (shown) URL.revokeObjectURL(shown);
  shown = URL.createObjectURL(image.blob);
  const preview = at("preview");
  preview.onload = () => {
    const { naturalWidth: width, naturalHeight: height } = preview;
    preview.classList.toggle("large", Math.max(width, height) > SMALL);
    at("caption").textContent = `${image.name}, ${width} × ${height} pixels`;
  };
  preview.onerror = () => preview.removeAttribute("src");
  preview.src = shown;
  preview.alt = `The image that was sent: ${image.name}`;
  at("caption").textContent = image.name;
  at("shown").hidden = false;
}

// Answers

let current = new AbortController();
let last = null; // the image that was asked about

/** Ask the chosen networks, one after the other, so that they do not share the time. */
async function ask(image) {
  current.abort();
  const { signal } = (current = new AbortController());
  last = image;
  complain("");
  at("answers").replaceChildren();
  show(image);
  for (const button of document.querySelectorAll("#samples button")) {
    button.setAttribute("aria-pressed", String(button.dataset.name === image.sample));
  }
  try {
    await loadNetworks();
    const body = `{"signature_name":"serve_bytes","instances":[{"b64":"${await base64(image.blob)}"}]}`;
    const asked = chosen();
    if (!asked.length) throw new Error("No network is chosen. Choose one above.");
    const told = [];
    for (const network of asked) {
      if (signal.aborted) return;
      say(`Asking ${network.name} …`);
      told.push(await askOne(image, network, body, signal));
    }
    if (!signal.aborted) say(told.join(" "));
  } catch (error) {
    if (error.name === "AbortError") return;
    complain(error.message);
    say("");
  }
}

/** Ask one network and show its answer; return it in a sentence. */
async function askOne(image, network, body, signal) {
  const card = make("article", { "aria-busy": "true" });
  card.append(make("h3", {}, network.name, " ", make("span", { class: "hint" }, `version ${network.version}`)));
  at("answers").append(card);
  try {
    const start = performance.now();
    const answer = await fetchJSON(path(network), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body,
      signal,
    });
    const time = performance.now() - start;
    const { probabilities, label, class_id: best } = answer.predictions[0];
    const names = probabilities.map((_, i) => network.labels[i] ?? `class ${i}`);
    names[best] = label; // also where a new version with other labels answered
    const verdict = `${label}, ${percent(probabilities[best])}`;
    card.append(
      make("p", { class: "verdict" }, verdict),
      make("p", { class: "detail" }, `answered in ${time.toFixed(time < 10 ? 1 : 0)} ms, the way there and back included`),
      bars(names, probabilities),
    );
    return `${network.name}: ${verdict}.`;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    card.append(make("p", { class: "problem" }, error.message));
    return `${network.name} gave no answer: ${error.message}`;
  } finally {
    card.append(sent(curl(image, network), network));
    card.setAttribute("aria-busy", "false");
  }
}

/** The most probable classes: name, number, and a bar for those who see it. */
function bars(names, probabilities) {
  const order = probabilities.map((_, i) => i).sort((a, b) => probabilities[b] - probabilities[a]);
  const list = order.slice(0, SHOWN).map((i) => {
    const bar = make("span", { class: "bar" });
    bar.style.width = `${100 * probabilities[i]}%`;
    return make(
      "li",
      {},
      make("span", { class: "name" }, names[i]),
      make("span", { class: "value" }, percent(probabilities[i])),
      make("span", { class: "track", "aria-hidden": "true" }, bar),
    );
  });
  return make("ol", { class: "bars", "aria-label": "The most probable classes" }, ...list);
}

function sent(command, network) {
  const code = make("code", {}, command);
  const button = make("button", { type: "button", "aria-label": `Copy the command for ${network.name}` }, "Copy");
  button.addEventListener("click", async () => {
    if (await copy(code)) {
      button.textContent = "Copied";
      say(`The command for ${network.name} is copied.`);
    } else {
      say("The command is selected; copy it with Ctrl+C or ⌘C.");
    }
  });
  return make("div", { class: "sent" }, make("h4", {}, "What was sent"), button, make("pre", {}, code));
}

/** Copy the text of an element; where the browser forbids it, select it. */
async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    // There is no clipboard on an insecure address, or it is forbidden.
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  }
}

// What the reader does

let turns = 0; // what the reader chose last is asked, whatever is read first

async function askFile(files) {
  const [file] = files;
  if (!file) return;
  const turn = ++turns;
  const good = await isImage(file);
  if (turn !== turns) return;
  if (!good) {
    complain(`${file.name} is neither a JPEG nor a PNG file. Save it as one of these, and try again.`);
    return;
  }
  const more = files.length > 1 ? ` (the first of ${files.length} files)` : "";
  await ask({ blob: file, name: file.name + more, command: `cat ${quoted(`./${file.name}`)}` });
}

async function askSample(name) {
  const address = `page/samples/${name}.png`;
  const turn = ++turns;
  let blob;
  try {
    const response = await fetch(url(address));
    if (!response.ok) throw new Error(response.statusText);
    blob = await response.blob();
  } catch {
    if (turn === turns) complain("The sample cannot be loaded. Is the server still running?");
    return;
  }
  if (turn !== turns) return;
  const command = `curl --silent ${quoted(url(address))}`;
  await ask({ blob, name: `the sample “${name}”`, sample: name, command });
}

async function loadSamples() {
  const { samples } = await fetchJSON("page/samples");
  const list = samples.map((name) => {
    const image = make("img", { src: url(`page/samples/${name}.png`), alt: name, width: 48, height: 48 });
    const button = make("button", { type: "button", "data-name": name, "aria-pressed": "false", title: name }, image);
    button.addEventListener("click", () => askSample(name));
    return make("li", {}, button);
  });
  at("samples").replaceChildren(...list);
}

at("file").addEventListener("change", async (event) => {
  await askFile(event.target.files);
  event.target.value = ""; // the same file can be chosen again
});

at("networks").addEventListener("change", () => {
  if (last) ask(last);
});

for (const type of ["dragenter", "dragover"]) {
  addEventListener(type, (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    at("drop").classList.add("over");
  });
}
for (const type of ["dragleave", "drop"]) {
  addEventListener(type, () => at("drop").classList.remove("over"));
}
addEventListener("drop", (event) => {
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  askFile(event.dataTransfer.files);
});

for (const load of [loadNetworks, loadSamples]) {
  load().catch((error) => complain(error.message));
}
