"""What the page shows is what is meant, and no text of others becomes HTML."""

from html.parser import HTMLParser

import pytest
from PIL import Image

from spf_lora.draw.three_ways import ThreeWays
from spf_lora.errors import SpfError
from spf_lora.evaluate.on_screen import Look
from spf_lora.studio import jobs, view
from spf_lora.studio.drawing import Asked, Chosen, Drawn

EVIL = '"><img src=x onerror=alert(1)><script>alert(2)</script>${alert(3)}{{value}}'
KNOWN = {"table", "thead", "tbody", "tr", "th", "td", "div", "span", "b", "pre", "p", "details"}
KNOWN |= {"summary", "figure", "figcaption", "img", "a", "input", "button", "h3", "h4", "ul", "li"}
KNOWN |= {"iframe", "progress", "svg", "polyline", "header", "h1", "caption"}


class Reader(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.handlers, self.unnamed = set(), set(), []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        found = dict(attrs)
        self.handlers |= {value for name, value in attrs if name.startswith("on")}
        if tag == "img" and "alt" not in found:
            self.unnamed.append(attrs)
        if tag == "input" and "aria-label" not in found:
            self.unnamed.append(attrs)


def drawn(prompt="a man, a hat", name="hat"):
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    maps = [Image.new("L", (8, 8), 128)] * 2
    asked = Asked(prompt=prompt, adapters=(Chosen(name),), seed=5, count=2)
    look = Look((0.25, 0.75), (("background changed",), (prompt,)))
    return Drawn(
        asked,
        ThreeWays(pictures, pictures, pictures, maps),
        prompt,
        {"plain": look, "local": look},
        "",
        (prompt,),
        1.0,
        {column: [prompt, prompt] for column in ("base", "plain", "local")},
        {"plain": prompt},
    )


def every_view(evil, tmp_path):
    folder = tmp_path / "00000000000000000001-00000000"
    folder.mkdir()
    (folder / "log").write_text(f"{evil}\n{evil} 1/2 {evil}")
    job = jobs.Job(folder, evil, ("train", evil), ".")
    report = {
        "pictures": 1,
        "usable": 0,
        "faults": [{"file": evil, "text": evil}],
        "notes": [evil],
        "companions": [
            {"words": evil, "count": 1, "captions": 2, "share": 0.5, "expected": None, "lift": 2}
        ],
    }
    return {
        "head": view.head(evil),
        "error": view.error(SpfError(evil, hint=evil)),
        "row": view.row(drawn(evil, evil)),
        "measured": view.measured(drawn(evil, evil)),
        "matrix": view.matrix([evil, "b"], [[0.1, 0.2], [0.3, 0.4]]),
        "page": view.page(evil, evil),
        "pre": view.pre(evil),
        "folder": view.folder_report(report, {evil: "data:image/png;base64,"}),
        "job": view.job(job),
        "queue": view.queue([(job, "waiting")]),
        "picture": view.picture(Image.new("RGB", (4, 4)), evil),
    }


def test_html_in_names_prompts_and_logs_stays_text(tmp_path):
    usual = Reader(view.row(drawn())).handlers
    for name, html in every_view(EVIL, tmp_path).items():
        seen = Reader(html)
        assert seen.tags <= KNOWN, name
        assert seen.handlers <= usual, name
        assert not seen.unnamed, name
        assert "${" not in html, name
        assert "{{" not in html, name


def test_a_row_shows_each_seed_three_ways_with_its_pollution_and_parameters():
    html = view.row(drawn())
    for text in ("seed 5, pollution 0.25", "seed 6, pollution 0.75", "Before and after"):
        assert text in html
    assert html.count("parameters of seed") == 2
    assert html.count("spf-map") == 2


def test_what_is_on_screen_is_measured_picture_by_picture_and_with_n():
    html = view.measured(drawn())
    assert "mean, n = 2" in html
    assert "0.50" in html
    assert "background changed" in html
    assert "Draw something" in view.measured(None)


@pytest.mark.parametrize("value", [-2.0, 0.0, 0.4])
def test_a_cell_of_the_matrix_says_whose_it_is_aloud(value):
    html = view.matrix(["hat", "beard"], [[0, value], [0, 0]])
    assert f"hat when beard is asked for: {value:.2f}" in html
    assert 'data-cell="0,1"' in html


def test_the_matrix_tells_what_is_wanted_from_what_is_not():
    html = view.matrix(["hat", "beard"], [[0.8, -0.001], [0.3, 0.9]])
    assert html.count('class="own"') == html.count('class="other"') == 2
    assert "-0.00" not in html


def test_a_report_runs_no_script():
    assert 'sandbox=""' in view.page("<script>alert(1)</script>", "report")
