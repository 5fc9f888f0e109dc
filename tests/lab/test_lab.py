"""The lab's page, in Chromium, against Keras, `cell_at` and Pillow."""

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import time
from threading import Thread

import numpy as np
import pytest

from kerascnn.lab import pack, write
from kerascnn.lab.pack import MODULES, script

keras = pytest.importorskip("keras")


@pytest.fixture
def visit(browser):
    """Open a page from disk; it may write no error and ask for nothing."""
    pages, wrong = [], []

    def go(file, fragment="", **options):
        """Open a file, or an address of this machine."""
        address = str(file) if str(file).startswith("http:") else f"file://{file}"
        page = browser.new_page(**options)
        pages.append(page)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda told: wrong.append(told.text))
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}{fragment}")
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        own = (address, "data:", "blob:")
        assert [u for u in asked if not u.startswith(own)] == []
        return page

    yield go
    for page in pages:
        page.close()
    assert wrong == []


def until(page, condition, argument=None, seconds=60):
    """Wait for a condition; Playwright's own way would need the page to allow eval."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition, argument):
        assert time.monotonic() < end, condition
        time.sleep(0.05)


def everything():
    """A small network with each kind of layer that the page computes."""
    from keras import layers

    from zoo.layers.ceil_max_pooling import CeilMaxPooling2D
    from zoo.layers.identity_shortcut import IdentityShortcut
    from zoo.layers.local_response_normalization import LocalResponseNormalization
    from zoo.layers.patch_whitening import PatchWhitening2D

    keras.utils.set_random_seed(3)
    image = keras.Input((13, 12, 3))
    x = layers.Rescaling([1 / 127, 1 / 100, 1 / 90], offset=-1.0)(image)
    a = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    b = layers.Conv2D(8, 7, dilation_rate=2, padding="same", activation="elu")(x)
    b = CeilMaxPooling2D(2)(b)
    b = layers.Conv2D(8, 3, groups=4, padding="same", use_bias=False)(b)
    b = layers.BatchNormalization(
        beta_initializer="random_normal",
        gamma_initializer="random_uniform",
        moving_mean_initializer="random_normal",
        moving_variance_initializer=keras.initializers.RandomUniform(0.5, 2),
    )(b)
    b = layers.Activation("gelu")(b)
    x = layers.Add()([a, b])
    x = layers.Concatenate()([x, layers.Multiply()([a, b])])
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="silu")(x)
    x = layers.SeparableConv2D(6, 3, padding="same", activation="tanh")(x)
    x = layers.Conv2DTranspose(5, 3, strides=2, padding="same", activation="selu")(x)
    x = layers.ZeroPadding2D(((1, 2), (0, 1)))(x)
    x = PatchWhitening2D(2)(x)
    x = LocalResponseNormalization(3, alpha=0.5, kappa=2.0)(x)
    x = layers.AveragePooling2D(3, 2, padding="same")(x)
    x = layers.LeakyReLU(0.1)(layers.LayerNormalization()(x))
    x = IdentityShortcut(50, strides=2)(x)
    x = layers.MaxPooling2D(2, padding="same")(layers.Dropout(0.5)(x))
    inner = keras.Sequential([layers.Dense(7, "softplus")], name="inner")
    x = inner(x)
    y = layers.Maximum()([x, layers.ReLU()(layers.Average()([x, x]))])
    y = layers.Subtract()([y, layers.Activation("sigmoid")(x)])
    both = layers.Concatenate()(
        [layers.GlobalMaxPooling2D()(y), layers.Flatten()(y)],
    )
    means = layers.GlobalAveragePooling2D()(y)
    z = layers.Dense(4)(layers.Concatenate()([both, means]))
    return keras.Model(image, layers.Softmax()(z), name="everything")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    file = tmp_path_factory.mktemp("lab") / "kinds.html"
    return write(everything(), file)


def test_every_kind_of_layer_is_keras_own(visit, kinds):
    page = visit(kinds)
    apart = page.evaluate(
        """() => {
          const { DATA, array, state } = window.lab;
          return DATA.calls.map((call, n) => {
            const own = array(call.keras);
            let most = 0;
            own.forEach((v, i) => {
              const far = Math.abs(v - state.ran.values[n][i]);
              most = Math.max(most, far / Math.max(1, Math.abs(v)));
            });
            const same = own.length === state.ran.values[n].length;
            return [call.kind, call.op, same ? most : Infinity];
          });
        }"""
    )
    assert {op for _, op, _ in apart}.isdisjoint({"recorded"}), apart
    assert len({kind for kind, _, _ in apart}) >= 25
    assert [a for a in apart if not a[2] <= 1e-5] == []


# Of the networks whose weights ship, those that the page runs itself.
NETWORKS = (
    *("lecture_cnn", "linear", "lenet5", "cuda_convnet", "resnet20", "nin"),
    *("all_cnn_c", "elu_cnn_11", "airbench94"),
)


@pytest.mark.parametrize(
    ("source", "count"),
    [("lecture_cnn", 40), ("kinds", 60), ("resnet20", 40)]
    + [pytest.param(n, 200, marks=pytest.mark.slow) for n in NETWORKS],
)
def test_cells_and_regions_are_those_of_python(source, count, visit, tmp_path):
    import zoo
    from kerascnn.explain.cell import cell_at
    from kerascnn.explain.receptive_field import region
    from kerascnn.explain.recording import prepared, record

    model = everything() if source == "kinds" else zoo.load(source)
    data, arrays = pack(model)
    assert {"recorded"}.isdisjoint(call["op"] for call in data["calls"])
    page = visit(write(model, tmp_path / "lab.html"))
    height, width, channels = data["shape"]
    at = data["samples"][0]["pixels"]["at"]
    image = np.frombuffer(arrays, np.uint8, height * width * channels, at)
    seen = record(model, prepared(model, image.reshape(height, width, channels)))
    rng = np.random.default_rng(5)
    # `cell_at` knows Keras' own layers alone.
    calls = enumerate(data["calls"])
    able = [n for n, c in calls if "filters" in c and c["kind"] != "PatchWhitening2D"]
    chosen = []
    for number in rng.choice(able, count):
        place = [int(rng.integers(n)) for n in data["calls"][number]["shape"]]
        chosen.append([int(number), place if len(place) == 3 else [0, 0, *place]])
    cells = page.evaluate(
        """(chosen) => chosen.map(([number, place]) => {
          const { DATA, state, dissect } = window.lab;
          const { sum, bias, value, region, count } =
            dissect(DATA, state.ran, number, place);
          return { sum, bias, value, region, count };
        })""",
        chosen,
    )
    for (number, place), found in zip(chosen, cells, strict=True):
        cell = cell_at(seen, number, place)
        size = np.abs(cell.products).sum() + 1
        assert found["count"] == cell.patch.size
        assert abs(found["sum"] - cell.total) <= 1e-5 * size
        assert abs(found["value"] - cell.model_value) <= 1e-5 * size
        assert (found["bias"] or 0) == pytest.approx(cell.bias or 0, rel=1e-6)
        expected = region(seen, number, *place[:2])
        assert tuple(found["region"]["rows"]) == expected.rows
        assert tuple(found["region"]["columns"]) == expected.columns


@pytest.mark.parametrize("size", [(50, 70), (31, 12), (200, 90), (13, 12)])
def test_resizing_is_pillows(size, visit, kinds):
    from PIL import Image, ImageOps

    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    page = visit(kinds)
    found = page.evaluate(
        """([pixels, height, width]) => {
          const canvas = document.createElement("canvas");
          [canvas.width, canvas.height] = [width, height];
          const context = canvas.getContext("2d");
          const picture = context.createImageData(width, height);
          for (let i = 0; i < width * height; i++) {
            const rgb = pixels.slice(3 * i, 3 * i + 3);
            picture.data.set([...rgb, 255], 4 * i);
          }
          context.putImageData(picture, 0, 0);
          return [...window.lab.fitted(canvas, [13, 12, 3])];
        }""",
        [pixels.ravel().tolist(), *size],
    )
    right = ImageOps.fit(Image.fromarray(pixels), (12, 13), Image.Resampling.BICUBIC)
    apart = np.array(found).reshape(13, 12, 3) - np.asarray(right).astype(int)
    assert np.abs(apart).max() <= 1


def test_a_file_a_brush_and_a_sample_change_the_answer(visit, kinds, tmp_path):
    from PIL import Image

    page = visit(kinds)
    first = page.inner_text("#answers")
    Image.new("RGB", (40, 40), (250, 40, 10)).save(tmp_path / "<b>red<i>.png")
    page.set_input_files("#file", tmp_path / "<b>red<i>.png")
    until(page, "document.getElementById('image-name').innerText[0] == '<'")
    assert page.inner_text("#answers") != first
    assert page.inner_text("#proof") == "Computed in this page"
    assert page.evaluate("window.lab.state.pixels[0]") == 250
    page.check("#brush")
    page.evaluate("document.getElementById('colour').value = '#0000ff'")
    page.click("#image", position={"x": 5, "y": 5})
    assert page.evaluate("[...window.lab.state.pixels.slice(0, 3)]") == [0, 0, 255]
    page.click("#samples button >> nth=0")
    assert page.inner_text("#answers") == first
    (tmp_path / "no.png").write_text("no image")
    page.set_input_files("#file", tmp_path / "no.png")
    page.wait_for_selector("#problem:visible")
    assert "no.png is no image" in page.inner_text("#problem")


def test_hover_keys_and_links_lead_to_cells(visit, kinds):
    page = visit(kinds, "#layer=conv2d&cell=1,2,3", has_touch=True)
    name = page.evaluate("window.lab.DATA.calls[1].name")
    page = visit(kinds, f"#layer={name}&cell=1,2,3", has_touch=True)
    assert page.evaluate("window.lab.state.place") == [1, 2, 3]
    assert f"{name}, row 1, column 2, map 3" in page.inner_text("#sentence")
    page.focus("#maps")
    for key in ("ArrowDown", "ArrowRight", "PageUp"):
        page.keyboard.press(key)
    assert page.evaluate("window.lab.state.place") == [2, 3, 2]
    page.locator("#maps").tap(position={"x": 3, "y": 3})
    assert page.evaluate("window.lab.state.place") == [0, 0, 0]
    page.hover("#maps", position={"x": 40, "y": 3})
    assert page.evaluate("window.lab.state.place[1]") > 0
    assert page.inner_text("#proof").startswith("Equal to Keras")


def test_a_dropped_file_is_the_image(visit, kinds):
    page = visit(kinds)
    page.evaluate(
        """async () => {
          const canvas = new OffscreenCanvas(30, 20);
          canvas.getContext("2d").fillStyle = "rgb(9, 200, 30)";
          canvas.getContext("2d").fillRect(0, 0, 30, 20);
          const given = new DataTransfer();
          given.items.add(new File([await canvas.convertToBlob()], "green.png"));
          const drop = { dataTransfer: given, bubbles: true, cancelable: true };
          document.body.dispatchEvent(new DragEvent("drop", drop));
        }"""
    )
    until(page, "document.getElementById('image-name').innerText == 'green.png'")
    assert page.evaluate("[...window.lab.state.pixels.slice(0, 3)]") == [9, 200, 30]


def test_the_address_leads_to_the_same_cell(visit, kinds):
    page = visit(kinds)
    page.click("#samples button >> nth=2")
    page.click("#strip button >> nth=2")
    page.focus("#maps")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("PageUp")
    until(page, "location.hash.includes(window.lab.state.place.join())")
    told = page.inner_text("#sentence")
    again = visit(kinds, page.evaluate("location.hash"))
    assert again.inner_text("#sentence") == told
    assert again.evaluate("window.lab.state.sample") == 2


def test_the_keyboard_reaches_all_and_everything_has_a_name(visit, kinds):
    page = visit(kinds)
    until(page, "document.querySelector('#walk-steps li .link')")
    whole = """() => [...document.querySelectorAll(
      "button, input, select, canvas[tabindex]")].filter((e) => e.checkVisibility())
      .map((e) => [e.id, e.ariaLabel || e.labels?.[0]?.innerText || e.innerText])"""
    wanted = page.evaluate(whole)
    assert [own for own in wanted if not (own[1] or "").strip()] == []
    reached = 0
    while reached <= len(wanted):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement == document.body"):
            break
        reached += 1
    assert reached == len(wanted)
    page.focus("#strip button >> nth=3")
    page.keyboard.press("Enter")
    name = page.inner_text("#strip button >> nth=3 >> .name")
    assert page.inner_text("#sentence").startswith(f"{name}, ")
    assert page.get_attribute("#sentence", "role") == "status"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_print_is_the_cell_alone_dark_on_light(scheme, visit, kinds):
    page = visit(kinds, "#layer=conv2d&cell=1,2,3", color_scheme=scheme)
    page.emulate_media(media="print", color_scheme=scheme)
    for other in ("header", "#strip", "#own", "#walk", "#change", "#race", "#bench"):
        assert not page.locator(other).is_visible()
    assert page.locator("#terms").is_visible()
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert ink == "rgb(29, 36, 48)"


WALK = """async (answer) => {
  const { DATA, state, walk, termsOf, examine } = window.lab;
  const start = { number: DATA.answer, place: [0, 0, answer] };
  const { steps, end } = await walk(DATA, (n, p) => examine(state.ran, n, p), start);
  return {
    end,
    steps: steps.map(({ cell, found }) => ({
      name: cell.call.name,
      op: cell.call.op,
      value: cell.value,
      bias: cell.bias ?? 0,
      total: cell.sum ?? null,
      amounts: termsOf(DATA, cell).map((term) => term.amount),
      best: found[0]?.amount ?? null,
    })),
  };
}"""


def test_the_walk_leads_from_an_answer_to_a_pixel(visit, tmp_path):
    page = visit(write("lecture_cnn", tmp_path / "lab.html"))
    found = page.evaluate(WALK, 6)
    names = [step["name"] for step in found["steps"]]
    assert " ".join(names) == (
        "probabilities fc flatten pool3 conv3 pool2 conv2 pool1 conv1 scale"
    )
    assert found["end"]["number"] == -1
    for step in found["steps"]:
        if step["total"] is not None:
            assert sum(step["amounts"]) == pytest.approx(step["total"], abs=1e-4)
            assert step["best"] == max(step["amounts"])
        else:
            assert len(step["amounts"]) == 1
    steps = page.locator("#walk-steps li")
    until(page, "document.querySelectorAll('#walk-steps li').length == 10")
    page.select_option("#walk-class", "3")
    until(page, "document.querySelector('#walk-steps').innerText.includes('unit 3 ')")
    second = steps.nth(1).locator("button").nth(2)
    told = second.inner_text()
    second.click()
    until(
        page,
        """() => document.querySelectorAll("#walk-steps li:nth-child(2) button")[2]
          .getAttribute("aria-pressed") == "true" """,
    )
    assert steps.nth(1).locator("button").nth(2).inner_text() == told
    steps.nth(2).locator("button").first.click()
    assert page.inner_text("#layer-name").startswith("flatten")


def test_the_walk_passes_every_kind_of_layer(visit, kinds):
    page = visit(kinds)
    for answer in range(4):
        found = page.evaluate(WALK, answer)
        assert found["end"] is None or found["end"]["number"] == -1
        assert {"convolution", "activation"} <= {step["op"] for step in found["steps"]}


def test_dense_pooling_and_softmax_are_taken_apart_too(visit, tmp_path):
    page = visit(write("lecture_cnn", tmp_path / "lab.html"), "#layer=fc&cell=0,0,6")
    assert page.locator("#terms .bars li").count() == 10
    # A unit of a flattened map says where it was: 272 = (4·4 + 1)·16, of (4, 4, 32).
    assert "272 (row 2, column 0, map 16)" in page.inner_text("#terms")
    page.evaluate("window.lab.choose(window.lab.DATA.answer, [0, 0, 6])")
    assert "frog: e^(" in page.inner_text("#terms")
    shares = page.locator("#terms .term").all_inner_texts()
    assert sum(
        float(text.rsplit("share ")[1].replace("−", "-")) for text in shares
    ) == pytest.approx(1, 5e-3)
    page.evaluate("window.lab.choose(2, [3, 4, 5])")
    assert page.locator("#terms td").count() == 4
    assert page.locator("#terms td.chosen").count() >= 1
    assert page.inner_text("#formula").startswith("Greatest of ")


def test_covering_shifting_and_permuting_are_numpys(visit, tmp_path):
    import zoo
    from kerascnn.explain import occlusion

    page = visit(write("lecture_cnn", tmp_path / "lab.html"))
    pixels = np.array(page.evaluate("[...window.lab.state.pixels]"), np.uint8)
    image = pixels.reshape(32, 32, 3)
    labels = page.evaluate("window.lab.DATA.labels")
    right = occlusion(zoo.load("lecture_cnn"), image, size=16, stride=4, labels=labels)
    page.fill("#square", "16")
    heat = page.evaluate(
        """(target) => window.lab.occlusion(
          window.lab.state.pixels, window.lab.DATA.shape, target, 16
        ).then((heat) => [...heat])""",
        right.target,
    )
    assert np.abs(np.reshape(heat, (32, 32)) - right.heat).max() < 1e-5
    for down, across in [(3, 0), (-2, 5), (0, -32)]:
        found = page.evaluate(
            """([down, right]) => {
              const { shifted, state } = window.lab;
              return [...shifted(state.pixels, [32, 32, 3], down, right)];
            }""",
            [down, across],
        )
        rows = np.clip(np.arange(32) - down, 0, 31)
        columns = np.clip(np.arange(32) - across, 0, 31)
        expected = image[rows][:, columns]
        assert np.array_equal(np.reshape(found, (32, 32, 3)), expected)
    mixed = page.evaluate(
        "[...window.lab.permuted(window.lab.state.pixels, [32, 32, 3])]"
    )
    assert not np.array_equal(mixed, pixels)
    colours = [sorted(map(tuple, np.reshape(p, (-1, 3)))) for p in (mixed, pixels)]
    assert colours[0] == colours[1]
    first = page.inner_text("#changed-answer")
    page.click("#occlude")
    until(page, "document.getElementById('heat-told').innerText.startsWith('gold')")
    assert page.locator("#changed-heat").is_visible()
    page.check("#permute")
    # The map is one of the image as it was.
    until(page, "document.getElementById('changed-heat').hidden")
    until(
        page,
        "(told) => document.getElementById('changed-answer').innerText != told",
        first,
    )
    page.click("#keep")
    assert page.evaluate("[...window.lab.state.pixels]") == mixed


def test_the_race_learns_by_the_right_slopes(tmp_path):
    import json
    from importlib import resources

    if shutil.which("node") is None:
        pytest.skip("Node is not installed")
    train = resources.files("kerascnn.lab") / "page" / "train.js"
    code = f"""
      import * as t from {json.dumps(train.as_uri())};
      const {{ x, y }} = t.draw(2, 5);
      const found = [];
      for (const make of [t.cnn, t.mlp]) {{
        const layers = make(t.random(3));
        const value = () => t.loss(t.forward(layers, x.subarray(0, 256)), y[0]).value;
        const {{ d }} = t.loss(t.forward(layers, x.subarray(0, 256)), y[0]);
        layers.reduceRight((slope, layer) => layer.backward(slope), d);
        const next = t.random(9);
        for (const [w, slopes] of layers.flatMap((layer) => layer.parts)) {{
          for (let n = 0; n < 8; n++) {{
            const i = Math.floor(next() * w.length);
            const [old, step] = [w[i], 1e-3];
            w[i] = old + step; const up = value();
            w[i] = old - step; const down = value();
            w[i] = old;
            found.push([(up - down) / (2 * step), slopes[i]]);
          }}
        }}
      }}
      console.log(JSON.stringify(found));"""
    (tmp_path / "check.mjs").write_text(code)
    ran = subprocess.run(
        ["node", tmp_path / "check.mjs"], capture_output=True, check=True, text=True
    )
    measured, slopes = np.array(json.loads(ran.stdout)).T
    assert np.abs(slopes).max() > 1e-2
    # A step may cross a kink of ReLU or of the pooling: of few weights.
    assert np.mean(np.abs(measured - slopes) < 2e-3) > 0.95


def test_the_race_is_run_in_the_page(visit, kinds):
    page = visit(kinds)
    page.fill("#race-labels", "20")
    page.click("#race-start")
    until(
        page,
        "document.getElementById('race-epoch').innerText.includes('25 of 25')",
    )
    told = page.locator("#race-told li").all_inner_texts()
    assert [text[:4] for text in told] == ["CNN:", "MLP:"]
    # 9·8 + 8 + 9·8·12 + 12 + 12·5 + 5 and 256·32 + 32 + 32·5 + 5
    assert "1,021 weights" in told[0] and "8,389 weights" in told[1]
    assert page.locator("#race-curves polyline").count() == 2
    assert page.locator("#race-cnn canvas").count() == 8
    assert page.inner_text("#race-start") == "Start"
    names = page.locator("#race-examples figcaption").all_inner_texts()
    assert names == ["cross", "ring", "square", "triangle", "hourglass"]
    mixed = """() => [...document.querySelectorAll("#race-examples canvas")]
      .map((canvas) => canvas.toDataURL()).join()"""
    before = page.evaluate(mixed)
    page.check("#race-permute")
    until(page, f"(told) => ({mixed})() != told", before)


@contextlib.contextmanager
def answered(model):
    """Serve a model's page; its address."""
    uvicorn = pytest.importorskip("uvicorn", reason="extra [serve] is absent")
    from kerascnn.lab.serve import create_app

    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(create_app(model), log_level="warning")
        server = uvicorn.Server(config)
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def served():
    """The address of a network that the page cannot run, and the network."""
    from keras import layers

    from kerascnn.lab import alone

    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [
            keras.Input((9, 8, 3)),
            layers.Conv2D(6, 3, padding="same", activation="relu", name="conv"),
            layers.GroupNormalization(2, name="norm"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Flatten(name="flat"),
            layers.Dense(5, activation="softmax", name="dense"),
        ]
    )
    assert not alone(model)
    with answered(model) as address:
        yield address, model


def test_a_network_that_the_page_cannot_run_is_served(served, visit):
    from kerascnn.explain.cell import cell_at
    from kerascnn.explain.receptive_field import region
    from kerascnn.explain.recording import prepared, record

    address, model = served
    page = visit(address)
    page.click("#samples button >> nth=1")
    until(page, "window.lab.state.sample == 1")
    assert not page.locator("#stays").is_visible()
    pixels = np.array(page.evaluate("[...window.lab.state.pixels]"), np.uint8)
    seen = record(model, prepared(model, pixels.reshape(9, 8, 3)))
    for number, place in [(0, [0, 0, 5]), (0, [8, 3, 0]), (4, [0, 0, 3])]:
        right = cell_at(seen, number, place)
        cell = page.evaluate(
            "([n, place]) => window.lab.examine(window.lab.state.ran, n, place)",
            [number, place],
        )
        assert cell["sum"] == pytest.approx(right.total, abs=1e-5)
        assert cell["worked"] == pytest.approx(right.model_value, abs=1e-5)
        assert cell["count"] == right.patch.size
        sums = [part["sum"] for part in cell["channels"]]
        assert sum(sums) == pytest.approx(right.total, abs=1e-5)
        expected = region(seen, number, *place[:2])
        assert tuple(cell["region"]["rows"]) == expected.rows
    values = page.evaluate("[...window.lab.state.ran.values[1]]")
    assert np.allclose(values, seen.values(1)[0].ravel(), atol=1e-6)
    page.evaluate("window.lab.choose(1, [1, 1, 1])")
    until(
        page, "document.getElementById('sentence').innerText.startsWith('norm, row 1')"
    )
    assert page.inner_text("#proof") == "Computed by Keras"
    until(
        page, "document.getElementById('walk-end').innerText.includes('the walk ends')"
    )
    assert page.locator("#walk-steps li").count() >= 3


def test_the_served_page_answers_itself_alone(served):
    import urllib3

    address, _ = served
    ask = urllib3.PoolManager().request
    pixels = bytes(9 * 8 * 3)
    assert ask("POST", f"{address}run", body=pixels).status == 200
    assert ask("POST", f"{address}run", body=pixels[1:]).status == 400
    told = {"Origin": "http://elsewhere.example"}
    assert ask("POST", f"{address}run", body=pixels, headers=told).status == 400
    assert ask("GET", address, headers={"Host": "elsewhere.example"}).status == 400
    for query in ("", "?run=999&call=0&place=0,0,0", "?run=1&call=0&place=0"):
        assert ask("GET", f"{address}cell{query}").status == 404


def test_a_sum_that_is_no_number_is_told_as_such():
    import urllib3

    layer = keras.layers.Dense(2, name="dense")
    flat = keras.layers.Flatten()
    model = keras.Sequential([keras.Input((4, 4, 1)), flat, layer])
    layer.kernel.assign(np.full((16, 2), np.nan))
    ask = urllib3.PoolManager().request
    with answered(model) as address:
        ask("POST", f"{address}run", body=bytes(16))
        answer = ask("GET", f"{address}cell?run=1&call=1&place=0,0,1")
    assert answer.status == 422 and b"is nan" in answer.data


def test_a_link_shows_a_part_and_sets_the_bench(visit, kinds):
    page = visit(kinds, "?show=bench&stride=3&padding=1")
    assert page.locator("#bench").is_visible()
    for other in ("header", "#strip", "#stage", "#own", "#walk", "#change", "#race"):
        assert not page.locator(other).is_visible()
    assert page.inner_text("#bench-size").startswith("(5 + 2·1 − 3)/3 + 1 = 2.33")


def test_the_command_serves_what_cannot_run_in_the_page(command, monkeypatch, tmp_path):
    from keras import layers

    opened, served = [], []
    monkeypatch.setattr("webbrowser.open", opened.append)

    def serve(network, image, *, show):
        served.append((network.name, image))
        show("http://127.0.0.1:1/")

    monkeypatch.setattr("kerascnn.lab.serve.serve", serve)
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.UnitNormalization(), layers.Flatten()],
        name="unknown",
    )
    model.save(tmp_path / "unknown.keras")
    _, output, _ = command("lab", tmp_path / "unknown.keras")
    assert "http://127.0.0.1:1/" in output and served == [("unknown", None)]
    code, output, _ = command("lab", "linear")
    assert code == 0 and output.startswith("page: /") and len(served) == 1
    assert opened[0] == "http://127.0.0.1:1/" and opened[1].startswith("file:///")
    monkeypatch.setitem(sys.modules, "kerascnn.lab.serve", None)
    code, _, error = command("lab", tmp_path / "unknown.keras")
    assert code == 1 and 'pip install "kerascnn[serve]"' in error
    command("lab", tmp_path / "unknown.keras", "--out", tmp_path / "recorded.html")
    assert (tmp_path / "recorded.html").exists() and len(opened) == 2


def test_the_bench_begins_at_four_and_tells_what_does_not_fit(visit, kinds):
    from kerascnn.arithmetic import output_size

    page = visit(kinds)
    assert page.inner_text("#bench-sum").endswith("= 4")
    sums = "".join(page.locator("#bench-map td").all_inner_texts())
    assert sums == "431143114"
    page.select_option("#stride", "3")
    assert "this stride does not fit, 2 left over" in page.inner_text("#bench-size")
    assert page.locator("#bench-image .unread").count() > 0
    for size in ("5", "6", "7"):
        page.select_option("#bench-pixels", size)
        for stride in ("1", "2", "3"):
            page.select_option("#stride", stride)
            for padding in ("valid", "same", "1", "2"):
                page.select_option("#padding", padding)
                told = padding if padding.isalpha() else int(padding)
                right = int(output_size(int(size), 3, int(stride), told))
                assert page.locator("#bench-map tr").count() == right


def test_what_the_page_lacks_is_shown_as_recorded(visit, tmp_path):
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3),
            layers.GroupNormalization(2),
            layers.Flatten(),
            layers.Dense(3, name="<script><b>dense"),
        ]
    )
    page = visit(write(model, tmp_path / "lab.html"))
    ops = page.evaluate("window.lab.DATA.calls.map((call) => call.op)")
    assert ops == ["convolution", "recorded", "same", "convolution"]
    assert page.locator("#strip .mark").all_inner_texts() == ["as recorded"]
    assert page.locator("#strip .name").last.inner_text() == "<script><b>dense"
    page.click("#samples button >> nth=1")
    assert page.locator("#stays").is_visible()


def test_what_a_recorded_layer_meets_stays_as_recorded_too(visit, tmp_path):
    from keras import layers

    image = keras.Input((8, 8, 1))
    stem = layers.Conv2D(4, 3, padding="same", name="stem")(image)
    normed = layers.GroupNormalization(2, name="norm")(stem)
    x = layers.Flatten()(layers.Add(name="both")([normed, stem]))
    model = keras.Model(image, layers.Dense(3, activation="softmax")(x))
    page = visit(write(model, tmp_path / "lab.html"))
    page.click("#samples button >> nth=1")
    until(page, "window.lab.state.sample == 1")
    apart = page.evaluate(
        """() => {
          const { DATA, array, state } = window.lab;
          return DATA.calls.map(({ keras }, n) => {
            const own = state.ran.values[n];
            return [DATA.calls[n].name, array(keras).every((v, i) => v === own[i])];
          });
        }"""
    )
    same = dict(apart)
    assert not same["stem"] and same["norm"] and same["both"]


def test_the_walk_turns_where_a_scale_is_negative(visit, tmp_path):
    from keras import layers

    norm = layers.BatchNormalization(name="norm")
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), norm, layers.Flatten(), layers.Dense(2)]
    )
    # Channel 1 goes down; of channel 0 given and value have unlike signs by its bias.
    values = [[1, -1, 1], [-300, 0, 300], [0, 0, 0], [1, 1, 1]]
    norm.set_weights([np.array(v, np.float32) for v in values])
    page = visit(write(model, tmp_path / "lab.html"))
    slopes = page.evaluate(
        """async () => {
          const { DATA, state, examine, termsOf } = window.lab;
          const cells = [0, 1, 2].map((c) => examine(state.ran, 0, [4, 4, c]));
          return (await Promise.all(cells)).map((c) => termsOf(DATA, c)[0].slope);
        }"""
    )
    assert slopes == [1, -1, 1]


def test_a_map_of_another_image_is_not_shown(visit, tmp_path):
    page = visit(write("lecture_cnn", tmp_path / "lab.html"))
    page.evaluate(
        """() => {
          document.getElementById("occlude").click();
          document.querySelectorAll("#samples button")[2].click();
        }"""
    )
    until(page, "!document.getElementById('occlude').disabled")
    assert not page.locator("#changed-heat").is_visible()
    assert page.inner_text("#heat-told") == ""


def test_the_brush_of_the_served_page_keeps_every_dab(served, visit):
    address, _ = served
    page = visit(address)
    page.check("#brush")
    page.evaluate("document.getElementById('colour').value = '#0000ff'")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(
        """() => {
          const image = document.getElementById("image");
          image.setPointerCapture = () => {};
          const box = image.getBoundingClientRect();
          for (let n = 0; n < 8; n++) {
            const place = [(n + 0.5) / 8, (n + 0.5) / 9];
            const at = {
              clientX: box.left + place[0] * box.width,
              clientY: box.top + place[1] * box.height,
            };
            const kind = n ? "pointermove" : "pointerdown";
            image.dispatchEvent(new PointerEvent(kind, at));
          }
        }"""
    )
    until(page, "document.getElementById('image-name').innerText == 'drawing'")
    pixels = np.array(page.evaluate("[...window.lab.state.pixels]")).reshape(9, 8, 3)
    blue = (pixels == (0, 0, 255)).all(-1)
    assert blue[range(8), range(8)].all()
    # Of those that wait the last alone is asked for.
    assert sum(url.endswith("/run") for url in asked) == 1


def test_what_is_packed_is_told_rightly():
    from keras import layers

    from kerascnn.training.run import Network

    image = keras.Input((8, 8, 3))
    flat = layers.Flatten(name="flat")(image)
    one = keras.Model(image, layers.Dense(1, activation="sigmoid")(flat))
    assert pack(Network(one, "pets", ("cat", "dog")))[0]["labels"] == ["dog"]
    three = layers.Dense(3, activation="softmax", name="p")(flat)
    outputs = {"features": flat, "probabilities": three}
    data, _ = pack(Network(keras.Model(image, outputs), "two", ("a", "b", "c")))
    assert data["calls"][data["answer"]]["name"] == "p"
    assert data["labels"] == ["a", "b", "c"]

    def part(name, filters, channels):
        convolution = layers.Conv2D(filters, 3, padding="same", name="conv")
        return keras.Sequential([keras.Input((8, 8, channels)), convolution], name=name)

    nested = keras.Sequential(
        [keras.Input((8, 8, 3)), part("a", 4, 3), part("b", 9, 4)]
    )
    told = {call["name"]: call["expression"] for call in pack(nested)[0]["calls"]}
    assert told == {"a/conv": "3·3·3·4 + 4", "b/conv": "3·3·4·9 + 9"}


@pytest.mark.parametrize("width", [390, 1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_width_scrolls_sideways(width, scheme, visit, kinds):
    page = visit(kinds, viewport={"width": width, "height": 900}, color_scheme=scheme)
    widths = page.evaluate(
        """async () => {
          const { DATA, choose } = window.lab;
          const [whole, widths] = [document.documentElement, []];
          for (const number of DATA.calls.keys()) {
            choose(number);
            await new Promise(requestAnimationFrame);
            widths.push([DATA.calls[number].name, whole.scrollWidth]);
          }
          return widths;
        }"""
    )
    assert [told for told in widths if told[1] > width] == []


def test_lecture_cnn_is_small_and_fast(visit, tmp_path):
    file = write("lecture_cnn", tmp_path / "lab.html")
    assert file.stat().st_size < 400_000
    page = visit(file)
    shapes = page.evaluate("window.lab.DATA.calls.map((call) => call.shape)")
    maps = [[32, 32, 3], [32, 32, 32], [16, 16, 32], [16, 16, 16], [8, 8, 16]]
    assert shapes == [*maps, [8, 8, 32], [4, 4, 32], [512], [10], [10]]
    assert "5·5·3·32 = 2,400" in page.inner_text("#strip")
    assert page.inner_text("#total") == "33,120 parameters 파라미터"
    hover = """() => {
      const start = performance.now();
      for (let n = 0; n < 20; n++) window.lab.point([n, n, n]);
      return (performance.now() - start) / 20;
    }"""
    assert page.evaluate(hover) < 50
    # The best of some: others may be using the processor.
    image = """async () => {
      const { DATA, array, take } = window.lab;
      const times = [];
      for (let n = 0; n < 12; n++) {
        const start = performance.now();
        await take(array(DATA.samples[n % 6].pixels), "sample", n % 6);
        times.push(performance.now() - start);
      }
      return Math.min(...times);
    }"""
    assert page.evaluate(image) < 100
    policy = page.get_attribute("meta[http-equiv]", "content")
    assert "unsafe" not in policy and "connect-src 'none'" in policy


def test_the_network_is_refused_clearly(tmp_path):
    flat = keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=re.escape("takes (7,)")):
        write(flat, tmp_path / "lab.html")
    assert not (tmp_path / "lab.html").exists()

    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="networks of one image of a known size; own"):
        pack(Own(name="own"))


def test_modules_are_short_and_whole():
    from importlib import resources

    folder = resources.files("kerascnn.lab") / "page"
    found = {p.name.removesuffix(".js") for p in folder.iterdir() if p.suffix == ".js"}
    assert found == {*MODULES, "train"}
    for name in found:
        assert len((folder / f"{name}.js").read_text().splitlines()) < 400
    assert not re.search(r"^(import|export)\b", script(), re.MULTILINE)
