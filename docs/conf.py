"""The documentation site: what Sphinx is told, and what the environment may say.

KERASCNN_DOCS           kept (default): the tutorials' output in docs/executed/full;
                        full: run them anew, and keep that; smoke: run at smoke size
KERASCNN_DOCS_NETWORKS  patterns of the networks that get a page, such as "vgg*,
                        lecture_cnn"; default: all
KERASCNN_EXECUTED       folder where executed notebooks are kept between builds;
                        default: docs/executed
KERASCNN_REPOSITORY     owner/name on GitHub, for links to the sources and to Colab
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "extensions"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import kerascnn  # noqa: E402

project = "kerascnn"
author = "The kerascnn founders"
copyright = "the kerascnn founders; Apache-2.0"
version = release = kerascnn.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "site_lab",
    "site_tutorials",
    "site_zoo",
    "site_benchmarks",
    "site_reference",
    "site_check",
]
site_size = os.environ.get("KERASCNN_DOCS", "kept")
site_repository = os.environ.get("KERASCNN_REPOSITORY", "")
site_networks = os.environ.get("KERASCNN_DOCS_NETWORKS", "*")
site_executed = os.environ.get("KERASCNN_EXECUTED", str(HERE / "executed"))

exclude_patterns = [
    "_build",
    "executed",
    "README.md",
    "measured.md",
    "networks.md",  # for readers of the repository; the site has it with links
    "tutorials/*.download/*",
    "zoo/_*.md",
]
myst_heading_anchors = 3
nb_execution_mode = "off"  # site_tutorials executes, and keeps what it has executed
nb_output_stderr = "remove"  # TensorFlow's messages at its start
nb_merge_streams = True
suppress_warnings = ["config.cache"]

default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Source"]
python_maximum_signature_line_length = 72

html_theme = "furo"
html_title = "kerascnn"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
