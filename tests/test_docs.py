"""The documentation site builds without a warning, whole, and needs no network."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import readable

import kerascnn
import zoo
from kerascnn import notebooks

DOCS = Path(__file__).resolve().parents[1] / "docs"
# What is written by hand; the rest of the folder is made from it.
SOURCES = (
    "conf.py",
    "executed",
    "index.md",
    "deploy",
    "extensions",
    "static",
    "ranking.png",
    "gallery.png",
    "lab.png",
)
NETWORKS = ("dense_mlp", "lecture_cnn", "vgg11", "vgg11_bn")
NEEDED = ("furo", "jupytext", "myst_nb", "sphinx")


def build(folder, **environment):
    """Build the site from a copy of its sources; return its folder and the log."""
    for package in NEEDED:
        pytest.importorskip(package, reason="of the extra [docs]")
    source, site = folder / "docs", folder / "site"
    source.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (DOCS / name).is_dir() else shutil.copyfile
        copy(DOCS / name, source / name)
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-b", "html", str(source), str(site)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    log = done.stdout[-3000:] + done.stderr[-3000:]
    assert done.returncode == 0, log
    return site, log


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site with some networks, and the tutorials as they were executed."""
    return build(
        tmp_path_factory.mktemp("site"),
        KERASCNN_DOCS="kept",
        KERASCNN_DOCS_NETWORKS=",".join(NETWORKS),
    )[0]


def extension(name):
    """A module of the site's."""
    spec = importlib.util.spec_from_file_location(
        name, DOCS / "extensions" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:  # they import each other
        patch.syspath_prepend(str(DOCS / "extensions"))
        spec.loader.exec_module(module)
    return module


def text_of(page):
    """A page as a reader sees it, without its tags."""
    import html

    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_the_measured_speed_has_a_page(site):
    text = text_of(site / "speed.html")
    assert "load by wrk" in text and "Memory of a training" in text
    titles = re.findall(r"<h2>(.*?)<", (site / "speed.html").read_text("utf-8"))
    assert len(titles) == len(set(titles)) > 5
    assert "64 clients with an image each get 1,087 answers a second" in text
    assert list(site.rglob("_images/inference.png"))


def test_every_tutorial_has_a_page_and_can_be_downloaded(site):
    index = (site / "tutorials/index.html").read_text(encoding="utf-8")
    for script in notebooks.scripts().values():
        page = (site / "tutorials" / f"{script.stem}.html").read_text(encoding="utf-8")
        assert f'href="{script.stem}.html"' in index
        assert "All numbers of this tutorial hold." in page
        assert [p.read_bytes() for p in site.rglob(script.name)] == [
            script.read_bytes()
        ]
        assert list(site.rglob(f"_downloads/*/{script.stem}.ipynb"))
        # The solutions are there, and folded, as the imports are.
        assert "<details" in page[: page.index('id="solutions"')]
        assert "<details" in page[page.index('id="solutions"') :]


def prose(script):
    """The paragraphs and list items of a tutorial, as letters and digits alone."""
    captions = extension("site_tutorials").captions
    for cell in re.split(r"^# %%", script.read_text(encoding="utf-8"), flags=re.M):
        if not cell.startswith(" [markdown]"):
            continue
        lines = [line.removeprefix("#") for line in cell.splitlines()[1:]]
        text = "\n".join(line.removeprefix(" ") for line in lines)
        text = captions(text)
        text = re.sub(r"\]\([^)]+\)", "]", text)  # a link's text, without its target
        # A number begins an item where a list stands: behind an empty line or an item.
        items = re.split(
            r"\n\n+|^#+ |^- |\n(?=\|)|^(?:1\. |(?<=\n)[2-9]\. )", text, flags=re.M
        )
        for item in items:
            if re.fullmatch(r"[\s|:-]*", item) is None:
                yield re.sub(r"[\W_]+", "", item)


@pytest.mark.parametrize("script", notebooks.scripts().values(), ids=lambda p: p.stem)
def test_every_sentence_of_the_prose_is_on_its_page(site, script):
    page = re.sub(r"[\W_]+", "", text_of(site / "tutorials" / f"{script.stem}.html"))
    assert [item for item in prose(script) if item not in page] == []


def test_every_figure_is_on_a_slide(site):
    slides = next(site.rglob("_downloads/*/figures.pdf")).read_bytes()
    drawn = sum(
        "image/png" in output.get("data", {})
        for path in (DOCS / "executed" / "full").glob("*.ipynb")
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", [])
    )
    assert slides.count(b"/Type /Page\n") + slides.count(b"/Type /Page ") == drawn > 30


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_a_page_from_its_card(site, name):
    card = zoo.card(name)
    page = site / "zoo" / card.family / f"{name}.html"
    text = text_of(page)
    for count in (card.trainable, card.macs):
        assert f"{count:,}" in text
    plain = re.sub(r"\W+", "", text)
    for line in (card.title, card.new, *card.deviations, *card.notes):
        assert re.sub(r"\W+", "", line) in plain
    for published in card.published:
        assert f"{published.accuracy:.2f}" in text and published.source in text
    for recipe in card.recipes:
        assert recipe in text
    html = page.read_text(encoding="utf-8")
    assert re.search(rf'alt="The volumes of {name}, from the image to [^"]+"', html)
    assert f"kerascnn.{name}" in re.findall(r'<dt [^>]*id="([^"]+)"', html)
    assert f"{name}.html" in (site / "zoo/index.html").read_text(encoding="utf-8")


def test_the_pages_show_every_layer_with_its_arithmetic(site):
    text = text_of(site / "zoo/lecture_cnn/lecture_cnn.html")
    for layer in ("conv1", "pool1", "conv2", "pool2", "conv3", "pool3", "fc"):
        assert layer in text
    assert "5·5·3·32 = 2,400" in text


def public(module):
    """The names in a module's `__all__`, read without importing Keras."""
    path = Path(importlib.util.find_spec(module).origin)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return {f"{module}.{name}" for name in ast.literal_eval(node.value)}
    raise AssertionError(f"{module} has no __all__")


def test_the_reference_has_every_public_name(site):
    def names(page):
        html = (site / "api" / f"{page}.html").read_text(encoding="utf-8")
        return set(re.findall(r'<dt [^>]*id="([^"]+)"', html))

    modules = {"arithmetic", "explain", "layers"}
    face = {f"kerascnn.{name}" for name in set(kerascnn.__all__) - modules}
    assert face <= names("kerascnn")
    assert public("kerascnn.explain") <= names("explain")
    assert public("zoo.layers") <= names("layers")
    assert {"kerascnn.arithmetic.output_size"} <= names("arithmetic")


def test_the_command_has_every_word(site):
    from typer.main import get_command

    from kerascnn import cli

    text = text_of(site / "command.html")
    for word, command in get_command(cli.app).commands.items():
        assert f"kerascnn {word}" in text
        for option in command.params:
            assert option.name == "help" or set(option.opts) <= {
                *text.split(),
                *(t.rstrip(",") for t in text.split()),
                *(t.lower() for t in text.split()),
            }


def test_the_first_page_and_chapters_03_to_07_show_the_lab(site):
    pages = {path: path.read_text() for path in (site / "tutorials").glob("*.html")}
    shown = {path.name[:2] for path, text in pages.items() if 'class="lab"' in text}
    assert shown == {"03", "04", "05", "06", "07"}
    assert 'src="lab/lecture_cnn.html?show=' in (site / "index.html").read_text()
    assert (site / "lab" / "lecture_cnn.html").stat().st_size < 400_000


def test_no_page_shows_its_markup(site):
    for page in site.rglob("*.html"):
        shown = text_of(page)
        assert ":::{" not in shown, page
        assert "{admonition}" not in shown and "{include}" not in shown, page


def test_the_home_page_shows_the_lectures_numbers_and_its_slip(site):
    text = text_of(site / "index.html")
    for number in ("33,120", "34,083,840", "35,107,840"):
        assert number in text


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "outside of the site"),
        ('<link rel="stylesheet" href="//fonts.example/a.css">', "outside of the site"),
        ('<img src="there.png">', "no description of there.png"),
        ('<img src="gone.png" alt="a cat">', "gone.png, which does not exist"),
        ('<a href="gone.html">x</a>', "gone.html, which does not exist"),
        ('<a href="#nowhere">x</a>', "where nothing has this name"),
        ('<a href="other.html#gone">x</a>', "where nothing has this name"),
    ],
)
def test_the_check_finds_faults(tmp_path, body, fault):
    pytest.importorskip("sphinx", reason="of the extra [docs]")
    (tmp_path / "there.png").touch()
    (tmp_path / "other.html").write_text('<p id="here">')
    page = tmp_path / "index.html"
    page.write_text(
        '<a href="other.html#here">x</a><img src="there.png" alt="a dog">'
        '<a href="https://example.org">a link may lead outside</a>'
    )
    assert extension("site_check").problems(tmp_path) == []
    page.write_text(body)
    (found,) = extension("site_check").problems(tmp_path)
    assert found.startswith("index.html: ") and fault in found
    (tmp_path / "a.css").write_text("a { background: url(https://example.org/b.png) }")
    assert len(extension("site_check").problems(tmp_path)) == 2


# The pictures that are shown smaller than `readable` reckons with.
_NARROW = """shown => [...document.querySelectorAll("article img")].filter(
    image => image.width + 1 < Math.min(shown, image.naturalWidth)
).map(image => image.src)"""


def look(browser, site, pages):
    """Open pages in a real browser: light and dark, wide and narrow."""
    windows = (("light", 1280), ("dark", 1280), ("light", 390), ("light", 1800))
    for scheme, width in windows:
        page = browser.new_page(
            color_scheme=scheme, viewport={"width": width, "height": 900}
        )
        requests, faults = [], []
        page.on("request", lambda r, seen=requests: seen.append(r.url))
        page.on("requestfailed", lambda r, seen=faults: seen.append(r.url))
        page.on("pageerror", lambda e, seen=faults: seen.append(str(e)))
        for name in pages:
            page.goto((site / name).as_uri())
            assert page.locator("h1").count() == 1
            wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wider <= 0, f"{name} is wider than a window of {width}"
            narrow = page.evaluate(_NARROW, readable.SHOWN)
            assert width != 1280 or not narrow, f"{narrow} of {name}"
        # The next page may be opened before a worker of the lab's has come.
        assert requests and [f for f in faults if not f.startswith("blob:")] == []
        inside = ("file:", "data:", "blob:")  # the lab's worker is a blob
        assert [u for u in requests if not u.startswith(inside)] == []
        page.close()


def test_a_browser_opens_it_from_the_file_system(browser, site):
    pages = ("index.html", "tutorials/07_architecture.html", "tutorials/index.html")
    pages += ("zoo/index.html", "zoo/vgg/vgg11_bn.html", "api/kerascnn.html")
    look(browser, site, (*pages, "api/explain.html", "command.html"))


@pytest.mark.slow
def test_the_whole_site_at_smoke_size(browser, tmp_path):
    pytest.importorskip("nbclient", reason="of the extra [docs]")
    executed = os.environ.get("KERASCNN_EXECUTED", str(tmp_path / "executed"))
    site, _ = build(tmp_path, KERASCNN_DOCS="smoke", KERASCNN_EXECUTED=executed)
    for name in zoo.names():
        assert (site / "zoo" / zoo.card(name).family / f"{name}.html").exists()
    pages = []
    for script in notebooks.scripts().values():
        pages.append(f"tutorials/{script.stem}.html")
        html = (site / pages[-1]).read_text(encoding="utf-8")
        assert "smoke size" in html
        assert "All numbers of this tutorial hold." in html
        drawn = "FIGURES" in script.read_text(encoding="utf-8")
        assert bool(re.search(r'<img alt="[^"]+"', html)) == drawn
    look(browser, site, [*pages, "zoo/resnet/resnet1202.html"])
