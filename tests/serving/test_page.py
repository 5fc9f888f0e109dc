"""The page: its routes, and what people do with it, in headless Chromium."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="serving needs kerascnn[serve]")
PAGE = Path(__file__).parents[2] / "kerascnn/serving/http/page"


@pytest.fixture(scope="module")
def server(version, running, tmp_path_factory):
    """Two models of the server: the same network under two names."""
    from kerascnn.serving.http import create_app

    folder = tmp_path_factory.mktemp("models")
    for name in ("<b>bold</b>", "lecture_cnn"):
        shutil.copytree(version, folder / name.replace("/", "-") / "1")
    with running(create_app(folder)) as url:
        yield f"{url}/"


@pytest.fixture
def get(server):
    httpx = pytest.importorskip("httpx", reason="asking the server needs httpx")
    with httpx.Client(base_url=server) as client:
        yield client.get


@pytest.fixture
def open_page(browser, server):
    """Open the page; what it logs as an error and asks elsewhere fails the test."""
    contexts, strange = [], []

    def open_page(prepare=None, **options):
        context = browser.new_context(**{"locale": "en-GB", **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.strange = strange
        page.on("pageerror", lambda error: strange.append(str(error)))
        page.on(
            "console",
            lambda m: strange.append(m.text) if m.type == "error" else None,
        )
        page.on(
            "request",
            lambda r: (
                None
                if r.url.startswith((server, "data:", "blob:"))
                else strange.append(r.url)
            ),
        )
        if prepare:
            prepare(page)
        page.goto(server)
        page.wait_for_selector("#samples img")
        page.wait_for_selector("#networks input")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert strange == []


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    """A JPEG file larger than the network's input, with a name that needs quoting."""
    from PIL import Image

    pixels = np.random.default_rng(5).integers(0, 256, (40, 60, 3), np.uint8)
    file = tmp_path_factory.mktemp("photographs") / "it's a photo; $HOME.jpg"
    Image.fromarray(pixels).resize((300, 200)).save(file)
    return file


def answered(page, count=2, of=""):
    """Wait until all networks have answered (of this image), and it is told.

    With locators: the page's policy forbids what wait_for_function does.
    """
    page.locator("#caption").filter(has_text=of).wait_for()
    page.locator("article[aria-busy=false]").nth(count - 1).wait_for()
    cards = page.locator("article")
    page.locator("#status").filter(has_not_text="Asking").wait_for()
    assert cards.count() == count
    return cards


def status(page):
    return page.locator("#status").inner_text()


# Routes


def test_models(get):
    assert get("page/models").json() == {
        "models": [
            {
                "name": name,
                "version": 1,
                "labels": [f"animal {number}" for number in range(10)],
                "input": [32, 32, 3],
                "files": True,
            }
            for name in ("<b>bold<-b>", "lecture_cnn")
        ]
    }


def test_samples_are_drawn_and_belong_to_no_training_image(get):
    import io

    from PIL import Image

    from kerascnn.data import load_data
    from kerascnn.data.shapes import LABELS

    names = get("page/samples").json()["samples"]
    assert names == list(LABELS)
    files = [get(f"page/samples/{name}.png") for name in names]
    assert {file.headers["content-type"] for file in files} == {"image/png"}
    images = [np.asarray(Image.open(io.BytesIO(file.content))) for file in files]
    assert {image.shape for image in images} == {(32, 32, 3)}
    data = load_data("shapes")
    known = {x.tobytes() for part in (data.train, data.test) for x in part.x}
    assert known.isdisjoint(image.tobytes() for image in images)
    gone = get("page/samples/dog.png")
    assert (
        gone.status_code == 404 and "there is no sample 'dog'" in gone.json()["error"]
    )


def test_the_page_asks_nobody_else(get):
    page = get("")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "http" not in policy
    assert "unsafe" not in policy
    for file in PAGE.iterdir():
        text = file.read_text(encoding="utf-8")
        assert not re.search(
            r"https?://|//[a-z]+\.[a-z]+|@import|eval\(|innerHTML", text
        )
    kinds = {"page/style.css": "text/css", "page/page.js": "text/javascript"}
    for path, kind in kinds.items():
        assert get(path).headers["content-type"].startswith(kind)
        assert path in page.text


# In the browser


def test_a_sample_is_answered(open_page, server, version):
    from kerascnn.serving import open_version
    from kerascnn.serving.http.page import samples

    page = open_page()
    page.get_by_role("button", name="star").click()
    cards = answered(page)
    expected = open_version(version).ask([samples()["star"]])
    order = np.argsort(-expected["probabilities"][0])
    for number in range(2):
        card = cards.nth(number)
        rows = card.locator(".bars li").all_inner_texts()
        assert [row.split("\n") for row in rows] == [
            [f"animal {i}", f"{100 * expected['probabilities'][0][i]:.1f}%"]
            for i in order[:5]
        ]
        widths = card.locator(".bar").evaluate_all(
            "bars => bars.map(b => b.offsetWidth / b.parentElement.clientWidth)"
        )
        given = expected["probabilities"][0][order[:5]]
        np.testing.assert_allclose(widths, given, atol=0.01)
        verdict = f"{expected['label'][0]}, {100 * given[0]:.1f}%"
        assert card.locator(".verdict").inner_text() == verdict
        assert re.search(r"answered in [\d.]+ ms", card.inner_text())
    # A name that looks like markup is shown as it is.
    assert cards.nth(0).locator("h3").inner_text() == "<b>bold<-b> version 1"
    assert status(page) == f"<b>bold<-b>: {verdict}. lecture_cnn: {verdict}."
    assert page.locator("#preview").get_attribute("alt").endswith("the sample “star”")
    assert "32 × 32 pixels" in page.locator("#caption").inner_text()
    pressed = page.locator("#samples button[aria-pressed=true]")
    assert pressed.count() == 1


@pytest.mark.parametrize("by", ["choosing", "dropping"])
def test_a_photograph_is_answered(open_page, version, photograph, by):
    from kerascnn.serving import open_version

    page = open_page()
    if by == "choosing":
        page.set_input_files("#file", photograph)
    else:
        drop(page, photograph.read_bytes(), photograph.name)
    cards = answered(page)
    label = open_version(version).ask([photograph.read_bytes()])["label"][0]
    assert label in cards.nth(0).locator(".verdict").inner_text()
    assert (
        f"{photograph.name}, 300 × 200 pixels" == page.locator("#caption").inner_text()
    )


def drop(page, content, name, kind="image/jpeg"):
    page.evaluate(
        """([content, name, type]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(content)], name, { type }));
            for (const kind of ["dragenter", "dragover", "drop"]) {
                const event = new DragEvent(kind,
                    { dataTransfer: transfer, bubbles: true, cancelable: true });
                document.body.dispatchEvent(event);
                if (kind === "dragover" && !event.defaultPrevented) throw "not taken";
            }
        }""",
        [list(content), name, kind],
    )


@pytest.mark.skipif(not shutil.which("curl"), reason="the commands need curl")
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_command_sends_what_was_sent(open_page, photograph, shell, tmp_path):
    """Pasted into a shell, beside the file, it gets the same answer."""
    page = open_page()
    sent = []
    page.on(
        "request",
        lambda r: sent.append(r.post_data) if r.method == "POST" else None,
    )
    for name, choose in {
        "photo": lambda: page.set_input_files("#file", photograph),
        "ring": lambda: page.get_by_role("button", name="ring").click(),
    }.items():
        choose()
        cards = answered(page, of=name)
        command = cards.nth(1).locator("code").inner_text()
        # The bytes that curl is given are those that the browser sent.
        kept = command.replace("| curl --data", f"| tee {tmp_path}/body | curl --data")
        done = subprocess.run(
            [shell, "-c", kept], cwd=photograph.parent, capture_output=True, check=True
        )
        assert (tmp_path / "body").read_text() == sent[-1]
        (row,) = json.loads(done.stdout)["predictions"]
        verdict = f"{row['label']}, {100 * row['probabilities'][row['class_id']]:.1f}%"
        assert cards.nth(1).locator(".verdict").inner_text() == verdict


def test_the_command_can_be_copied(open_page):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="heart").click()
    answered(page)
    button = page.get_by_role("button", name="Copy the command for lecture_cnn")
    button.click()
    page.locator("#status").filter(has_text="is copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("article").nth(1).locator("code").inner_text()
    assert button.inner_text() == "Copied"


def test_networks_can_be_left_out(open_page):
    page = open_page()
    page.get_by_label("<b>bold<-b>").uncheck()
    page.get_by_role("button", name="cross").click()
    cards = answered(page, 1)
    assert cards.locator("h3").inner_text() == "lecture_cnn version 1"
    page.get_by_label("<b>bold<-b>").check()  # asks again
    answered(page, 2)
    for box in page.locator("#networks input").all():
        box.uncheck()
    page.wait_for_selector("#problem:not([hidden])")
    assert (
        page.locator("#problem").inner_text()
        == "No network is chosen. Choose one above."
    )


def test_everything_by_keyboard(open_page, photograph):
    page = open_page()
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "() => { const e = document.activeElement;"
                " const ring = e.closest('.drop') ?? e;"
                " return [e.id || e.dataset.name || e.value || e.tagName,"
                " getComputedStyle(ring).outlineStyle]; }"
            )
        )
        if reached[-1][0] == "lecture_cnn":
            break
    names = [name for name, _ in reached]
    assert names[:3] == ["file", "arrow", "circle"]
    assert names[-2:] == ["<b>bold<-b>", "lecture_cnn"]
    assert {outline for _, outline in reached} <= {"solid", "auto"}
    page.keyboard.press("Space")  # lecture_cnn is not to be asked
    for _ in range(names[::-1].index("star")):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    cards = answered(page, 1)
    assert cards.locator("h3").inner_text() == "<b>bold<-b> version 1"
    assert page.evaluate("document.activeElement.dataset.name") == "star"


def test_what_goes_wrong_is_said(open_page, tmp_path):
    page = open_page()
    (tmp_path / "notes.txt").write_text("no image")
    page.set_input_files("#file", tmp_path / "notes.txt")
    problem = page.locator("#problem")
    problem.wait_for()
    assert problem.inner_text().startswith(
        "notes.txt is neither a JPEG nor a PNG file."
    )
    assert problem.get_attribute("role") == "alert"
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    page.set_input_files("#file", tmp_path / "broken.png")
    cards = answered(page)
    assert problem.is_hidden()
    refused = cards.nth(0).locator(".problem").inner_text()
    assert refused.startswith("The server refused: ")
    assert status(page).startswith("<b>bold<-b> gave no answer: The server refused: ")
    page.strange[:] = [text for text in page.strange if "400" not in text]


def test_busy_and_gone_servers(open_page):
    def prepare(page):
        page.route(
            "**/*bold*:predict",
            lambda route: route.fulfill(
                status=503,
                headers={"Retry-After": "2"},
                json={"error": "queue is full"},
            ),
        )
        page.route("**/lecture_cnn:predict", lambda route: route.abort())

    page = open_page(prepare)
    page.get_by_role("button", name="circle").click()
    cards = answered(page)
    texts = cards.locator(".problem").all_inner_texts()
    assert texts == [
        "The server is busy; try again in 2 s. (queue is full)",
        "The server cannot be reached. Is it still running?",
    ]
    page.strange.clear()  # the browser logs both


def test_models_that_take_no_files_and_no_models(open_page):
    model = {"name": "radar", "version": 3, "labels": [], "input": [8, 8, 2]}

    def prepare(page, models=({**model, "files": False},)):
        page.route(
            "**/page/models", lambda route: route.fulfill(json={"models": list(models)})
        )

    page = open_page(prepare)
    box = page.get_by_label("radar")
    assert box.is_disabled()
    assert "takes arrays of 2 channels only" in page.locator("#networks").inner_text()
    page.unroute("**/page/models")
    prepare(page, ())
    page.get_by_role("button", name="circle").click()
    page.wait_for_selector("#problem:not([hidden])")
    assert "None is loaded yet" in page.locator("#networks").inner_text()


def test_the_last_choice_counts(open_page):
    """An image that arrives late does not take the place of a later one."""
    waiting = []

    def prepare(page):
        page.route("**/samples/star.png", lambda route: waiting.append(route))

    page = open_page(prepare)
    waiting.pop().continue_()  # its picture on the page
    page.get_by_role("button", name="star").click()
    page.get_by_role("button", name="ring").click()
    answered(page, of="ring")
    assert len(waiting) == 1
    waiting.pop().continue_()
    page.wait_for_timeout(300)
    assert "ring" in page.locator("#caption").inner_text()


LIGHT_AND_DARK, NARROW_AND_WIDE = ("light", "dark"), (320, 1280)


@pytest.mark.parametrize("width", NARROW_AND_WIDE)
@pytest.mark.parametrize("scheme", LIGHT_AND_DARK)
def test_it_can_be_read(open_page, photograph, scheme, width):
    """Contrast 4.5:1 of every text, nothing cut off at the side, names for all."""
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    page.set_input_files("#file", photograph)
    answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    low = page.evaluate(CONTRAST)
    assert low == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    unnamed = page.evaluate(
        "() => [...document.querySelectorAll('img, input, button')].filter(e =>"
        " !(e.alt || e.ariaLabel || e.labels?.length || e.innerText"
        " || e.querySelector('img[alt]'))).map(e => e.outerHTML)"
    )
    assert unnamed == []
    levels = page.evaluate(
        "() => [...document.querySelectorAll('h1, h2, h3, h4')].map(e => +e.tagName[1])"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    steps = np.diff(levels)
    assert steps.max() <= 1  # no level is left out


# WCAG 2.2, 1.4.3: the contrast of each text with what lies behind it.
CONTRAST = """() => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = (rgb) => {
        const [r, g, b] = rgb.slice(0, 3).map((v) => v / 255).map(
            (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (e) => {
        for (; e; e = e.parentElement) {
            const colour = parse(getComputedStyle(e).backgroundColor);
            if (colour.length < 4 || colour[3] > 0) return colour;
        }
        return [255, 255, 255];
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const low = [];
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
        const a = light(parse(getComputedStyle(element).color));
        const b = light(behind(element));
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) low.push([walker.currentNode.data, ratio]);
    }
    return low;
}"""
