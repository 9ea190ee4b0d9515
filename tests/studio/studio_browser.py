"""A studio in a process of its own, and Debian's Chromium to look at it."""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 300  # seconds, for a busy machine
# what a browser says of a request that a page gave up, and of a script in a report
USUAL = ("ERR_ABORTED", "Blocked script execution in 'about:srcdoc'")
# writes down every address that is not this machine, and refuses it
GUARD = """
import socket, os
real = socket.socket.connect
def connect(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        with open(os.environ["SPF_TEST_OUTSIDE"], "a") as file:
            file.write(f"{address}\\n")
        raise OSError("no network")
    return real(self, address)
socket.socket.connect = connect
real_look = socket.getaddrinfo
def look(host, *more, **words):
    if host not in (None, "", "127.0.0.1", "::1", "localhost", "0.0.0.0"):
        with open(os.environ["SPF_TEST_OUTSIDE"], "a") as file:
            file.write(f"{host}\\n")
        raise socket.gaierror("no network")
    return real_look(host, *more, **words)
socket.getaddrinfo = look
"""


class Studio:
    """A running server."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "studio"
        self.outside = folder / "outside.txt"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        guard = self.folder / "guard"
        guard.mkdir(exist_ok=True)
        (guard / "sitecustomize.py").write_text(GUARD)
        root = Path(__file__).parents[2]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(guard), str(root)]),
            "SPF_LORA_STUDIO": str(self.home),
            "SPF_TEST_OUTSIDE": str(self.outside),
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("HF_HUB_OFFLINE", None)  # it must not be what keeps it quiet
        self.process = subprocess.Popen(
            [sys.executable, "-m", "spf_lora", "studio", "--port", str(self.port)],
            cwd=self.folder,
            env=environment,
            stderr=(self.folder / "server.log").open("ab"),
        )
        end = time.monotonic() + PATIENCE
        while self.get("/config") != 200:
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.2)

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(60)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def get(self, path: str, **headers: str) -> int:
        """Return the status of a path, sent as it is written; 0 where nobody answers."""
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.putrequest("GET", path, skip_host="Host" in headers)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            self.body = answer.read()
            return answer.status
        except (ConnectionError, TimeoutError):
            return 0
        finally:
            connection.close()


@contextmanager
def chromium():
    """Yield a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@contextmanager
def opened(browser, studio, width=1280, *, dark=False):
    """Yield a page; it must log no error and ask nobody but the studio."""
    scheme = "dark" if dark else "light"
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    faults, outside = [], []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    ours = (studio.address, "data:", "blob:")
    page.on(
        "request", lambda asked: None if asked.url.startswith(ours) else outside.append(asked.url)
    )
    page.goto(studio.address)
    page.wait_for_selector("#spf-draw")
    yield page
    assert not outside
    assert not [one for one in faults if not any(usual in one for usual in USUAL)]
    context.close()
