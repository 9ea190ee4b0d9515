"""The four tabs, clicked through in a browser on the embedded base; hostile input; no network.

`pip install -c constraints-studio.txt -e ".[studio,test]" playwright`, Debian's chromium, then
`pytest -m studio -n 0 tests/studio`.
"""

import json
import os
import pickle
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from studio_browser import CHROMIUM, PATIENCE, Studio, chromium, opened

from spf_lora.registry.names import find

pytestmark = pytest.mark.studio
pytest.importorskip("playwright")
pytest.importorskip("gradio")
if CHROMIUM is None:
    pytest.skip("there is no chromium", allow_module_level=True)

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script> ${alert(3)} {{value}}, a beard"
TABS = ("Try", "Measure", "Train", "Clean")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Studio(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(server, browser):
    with opened(browser, server) as page:
        yield page


def tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def hasty(page):
    """Two pictures of three steps."""
    page.get_by_role("button", name="Sampler").click()
    for label, value in (("Steps", "3"), ("Pictures", "2")):
        number = page.get_by_label(f"number input for {label}", exact=True)
        number.fill(value)
        number.press("Tab")


def test_try_draws_three_ways_with_map_slider_parameters_and_commands(page):
    hasty(page)
    page.click("#spf-draw")
    page.wait_for_selector("#spf-pictures .spf-row")
    assert page.locator("#spf-pictures .spf-line").count() == 2
    assert page.locator("#spf-pictures .spf-cell").count() == 8
    cell = page.locator("#spf-pictures .spf-cell", has_text="drawn locally").first
    overlay = cell.locator(".spf-map")
    assert overlay.evaluate("one => getComputedStyle(one).opacity") == "0"
    cell.focus()  # and the same on hover
    page.wait_for_function(
        "getComputedStyle(document.activeElement.querySelector('.spf-map')).opacity > 0.5"
    )
    slider = page.get_by_label("border between before and after, seed 1")
    slider.focus()
    page.keyboard.press("Home")
    figure = page.locator("#spf-pictures figure", has=slider)
    assert figure.evaluate("one => getComputedStyle(one).getPropertyValue('--cut')") == "0%"
    page.get_by_text("parameters of seed 2").click()
    assert "Runtime: local" in page.inner_text("#spf-pictures details[open]")
    commands = page.locator(".cm-content").inner_text()
    assert "spf-lora generate 'a portrait of a person" in commands
    assert "--local" in commands
    with page.expect_download() as saved:
        cell.get_by_text("save PNG").click()
    assert Image.open(saved.value.path()).info["parameters"].startswith("a portrait of a person")
    tab(page, "Measure")
    assert "mean, n = 2" in page.inner_text("#spf-live")


def test_an_adapter_that_came_meanwhile_can_be_chosen(page, server):
    kept = server.folder / "adapters"
    kept.mkdir(exist_ok=True)
    shutil.copy(find("beard").path, kept / "later.safetensors")
    tab(page, "Train")
    tab(page, "Try")
    chosen = page.locator("#spf-adapter-1 input")
    page.wait_for_timeout(500)
    chosen.click()
    page.get_by_role("option", name="later", exact=True).wait_for()
    page.keyboard.press("Escape")
    assert chosen.input_value() == "beard"


def test_a_drawing_is_cancelled(page):
    page.get_by_role("button", name="Sampler").click()
    page.get_by_label("number input for Steps", exact=True).fill("100")
    page.keyboard.press("Tab")
    page.click("#spf-draw")
    page.wait_for_timeout(1500)
    page.click("#spf-cancel")
    page.wait_for_selector("#spf-pictures .spf-error")
    assert "cancelled" in page.inner_text("#spf-pictures")


def test_html_and_a_prompt_of_100_kb_stay_text(page):
    hasty(page)
    page.fill("#spf-prompt textarea", "a" * 100_000)
    page.click("#spf-draw")
    page.wait_for_selector("#spf-pictures .spf-error")
    assert "100000 characters" in page.inner_text("#spf-pictures")
    page.fill("#spf-prompt textarea", EVIL)
    page.click("#spf-draw")
    page.wait_for_selector("#spf-pictures .spf-row")
    assert EVIL in page.text_content("#spf-pictures details")
    assert page.locator("#spf-pictures img[onerror]").count() == 0


def made_job(server, number, words, out, code=0):
    """Put a finished job into the studio's folder, as its worker would."""
    folder = server.home / "jobs" / f"{number:020d}-{number:08x}"
    folder.mkdir(parents=True)
    table = {"title": f"job {number}", "words": words, "cwd": str(server.folder)}
    (folder / "job.json").write_text(json.dumps(table))
    for name, text in (("started", ""), ("log", "done"), ("out", out)):
        (folder / name).write_text(text)
    (folder / "end.json").write_text(json.dumps({"code": code}))
    return folder


def test_measure_shows_a_report_and_a_matrix_that_is_clicked(page, server):
    cross = {
        "adapters": ["hat", "beard"],
        "cross_talk": [[0.0, 0.25], [-0.5, 0.0]],
        "overlap": [[{"cosine": 1.0}, {"cosine": 0.1}], [{"cosine": 0.1}, {"cosine": 1.0}]],
    }
    report = made_job(server, 1, ["evaluate", "beard"], "")
    (report / "report").mkdir()
    (report / "report/report.html").write_text("<h1>pollution</h1><script>alert(3)</script>")
    made_job(server, 2, ["stack", "report", "x", "--json"], json.dumps(cross))
    tab(page, "Measure")
    page.get_by_role("button", name="hat when beard is asked for: 0.25").click()
    page.wait_for_function("document.querySelector('#spf-cell').innerText.includes('+0.250')")
    choose(page, "#spf-measure-job", "job 1")
    page.wait_for_selector("#spf-measure-status iframe")
    frame = page.frame_locator("#spf-measure-status iframe")
    assert frame.locator("h1").inner_text() == "pollution"


def choose(page, dropdown, text):
    page.locator(f"{dropdown} input").click()
    page.get_by_role("option", name=text).first.click()


def wait_for_text(page, selector, *texts):
    page.wait_for_function(
        "([where, texts]) => texts.some("
        "  one => document.querySelector(where)?.innerText.includes(one))",
        arg=[selector, list(texts)],
    )


def test_train_checks_a_folder_estimates_starts_stops_and_outlives_page_and_server(
    server, browser, tmp_path
):
    rng = np.random.default_rng(0)
    for name, caption in (("a", "a man, a beard"), ("b", "a woman in a park"), ("c", "x")):
        pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(caption)
    with opened(browser, server) as page:
        tab(page, "Train")
        page.get_by_label("a folder of pictures with captions").check()
        page.fill("#spf-folder textarea, #spf-folder input", str(tmp_path))
        page.click("#spf-check")
        page.wait_for_selector("#spf-checked .spf-faults img")
        assert "b.txt" in page.inner_text("#spf-checked") or "b.png" in page.inner_text(
            "#spf-checked"
        )
        page.get_by_label("the portrait world").check()
        page.fill("#spf-adapter-rank input", "4")
        page.click("#spf-estimate")
        wait_for_text(page, "#spf-told", "rank 4")
        page.click("#spf-train")
        wait_for_text(page, "#spf-train-status", "running")
    server.kill()  # the job goes on
    server.start()
    with opened(browser, server) as page:
        tab(page, "Train")
        wait_for_text(page, "#spf-train-status", "running")
        page.click("#spf-train-stop")
        wait_for_text(page, "#spf-train-status", "stopped")
        page.click("#spf-train-resume")
        wait_for_text(page, "#spf-train-status", "waiting", "running")
        page.click("#spf-train-stop")
        wait_for_text(page, "#spf-train-status", "stopped")


def test_clean_tells_what_a_file_is_refuses_a_pickle_and_starts_a_job(page, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "gone-off"),))

    (tmp_path / "evil.safetensors").write_bytes(pickle.dumps(Bomb()))
    tab(page, "Clean")
    page.set_input_files("#spf-drop input[type=file]", tmp_path / "evil.safetensors")
    page.wait_for_selector("#spf-facts .spf-error")
    assert not (tmp_path / "gone-off").exists()
    page.get_by_label("Remove").or_(page.get_by_label("Clear")).first.click()
    page.set_input_files("#spf-drop input[type=file]", find("beard").path)
    wait_for_text(page, "#spf-facts", "a beard")
    page.click("#spf-clean")
    wait_for_text(page, "#spf-clean-status", "running")
    page.click("#spf-clean-stop")
    wait_for_text(page, "#spf-clean-status", "stopped")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_tab_is_wider_than_the_window_and_everything_has_a_name(server, browser, width, dark):
    with opened(browser, server, width, dark=dark) as page:
        for name in TABS:
            if page.get_by_role("tab", name=name, exact=True).count():
                tab(page, name)
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            unnamed = page.evaluate(
                """[...document.querySelectorAll('input, textarea, button, select')]
                .filter(one => one.offsetParent && !(one.labels?.length || one.ariaLabel
                  || one.innerText.trim() || one.title || one.getAttribute('aria-labelledby')))
                .map(one => one.outerHTML.slice(0, 120))"""
            )
            assert not unnamed, name


def test_the_keyboard_reaches_the_button_and_it_draws(page):
    hasty(page)
    page.locator("#spf-draw").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#spf-pictures .spf-row")


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file=%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/gradio_api/file=FOLDER/secret.txt",
        "/gradio_api/file=HOME/secret.txt",
        "/file=/etc/passwd",
        "/static/../../../../etc/passwd",
        "/assets/..%2f..%2f..%2fetc%2fpasswd",
        "/theme.css/../../../etc/passwd",
        "/gradio_api/proxy=http://example.org/",
    ],
)
def test_no_other_file_is_served(server, path):
    (server.folder / "secret.txt").write_text("secret root:")
    (server.home / "secret.txt").write_text("secret root:")
    path = path.replace("FOLDER", str(server.folder)).replace("HOME", str(server.home))
    assert server.get(path) in (400, 403, 404, 405)
    assert b"root:" not in server.body


def test_another_sites_name_is_refused(server):
    assert server.get("/", Host="evil.example") == 400
    assert server.get("/config", Host=f"127.0.0.1:{server.port}") == 200


def test_another_site_may_not_ask(server):
    own = f"http://127.0.0.1:{server.port}"
    for origin, status in (("http://evil.example", 403), ("null", 403), (own, 200)):
        assert server.get("/config", Origin=origin) == status


def test_it_listens_on_this_machine_alone(server):
    own = socket.gethostbyname(socket.gethostname())
    if own.startswith("127."):
        pytest.skip("the machine has no other address")
    with socket.socket() as other:
        assert other.connect_ex((own, server.port)) != 0


def test_a_file_of_a_gigabyte_is_refused_at_once(server):
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as line:
        head = (
            "POST /gradio_api/upload HTTP/1.1", f"Host: 127.0.0.1:{server.port}",
            "Content-Type: multipart/form-data; boundary=x", f"Content-Length: {1 << 30}", "", "",
        )  # fmt: skip
        line.sendall("\r\n".join(head).encode())
        assert b" 413 " in line.recv(200)
    assert time.monotonic() - begun < PATIENCE / 10


def test_fifty_requests_at_once_are_all_answered(server):
    with ThreadPoolExecutor(50) as many:
        assert set(many.map(lambda _: server.get("/config"), range(50))) == {200}
    assert server.get("/") == 200


def test_no_request_leaves_this_machine(server, page):
    for name in TABS:
        tab(page, name)
    page.wait_for_timeout(3000)
    server.get("/")
    for mark in (b"googleapis", b"cdnjs", b"jsdelivr"):
        assert mark not in server.body
    assert not server.outside.exists(), server.outside.read_text()
