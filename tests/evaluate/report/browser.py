"""Headless Debian Chromium: what a page logs, looks like and measures."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)


def run(address: Path, profile: Path, *flags: str) -> tuple[str, list[str]]:
    """Open a page; return stdout and what the page's console said."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", *flags, address.as_uri()],
        capture_output=True,
        check=True,
        text=True,
        timeout=120,
    )
    return done.stdout, re.findall(r"CONSOLE[:(].*", done.stderr)


def screenshot(page: Path, folder: Path, *, width: int, height: int, dark: bool = False):
    """Return (picture, console lines)."""
    from PIL import Image

    target = folder / f"{page.stem}-{width}-{'dark' if dark else 'light'}.png"
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    flags = (f"--window-size={width},{height}", f"--screenshot={target}", scheme)
    _, console = run(page, folder / "profile", *flags)
    return Image.open(target).convert("RGB"), console


_PROBE = """<!doctype html><meta charset="utf-8"><body><script>
const found = [], widths = WIDTHS;
function look(frame, width) {
  const page = frame.contentDocument, root = page.documentElement;
  page.querySelectorAll("details").forEach(d => d.open = true);
  const images = [...page.images];
  Promise.allSettled(images.map(i => i.decode())).then(all => {
    const wide = [...page.querySelectorAll("body *")].filter(
      e => e.getBoundingClientRect().right > width + 0.5).map(e => e.outerHTML.slice(0, 80));
    found.push({width, scroll: root.scrollWidth, images: images.length, wide,
      broken: images.filter(i => !i.naturalWidth).length, noAlt: images.filter(i => !i.alt).length,
      rejected: all.filter(r => r.status != "fulfilled").length,
      bold: page.querySelectorAll("b#evil").length, text: page.body.innerText.length});
    if (found.length == widths.length) {
      const out = document.createElement("pre");
      out.id = "found"; out.textContent = JSON.stringify(found); document.body.append(out);
    }
  });
}
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:800px;border:0`;
  frame.onload = () => look(frame, width);
  frame.src = "PAGE";
  document.body.append(frame);
}
</script>"""


def measure(page: Path, folder: Path, widths: list[int]) -> list[dict]:
    """Open the untouched page in frames of some widths and look around in it."""
    probe = folder / "probe.html"
    probe.write_text(_PROBE.replace("WIDTHS", json.dumps(widths)).replace("PAGE", page.as_uri()))
    # The probe may look into the page, which has no script of its own.
    out, _ = run(
        probe,
        folder / "profile",
        "--disable-web-security",
        "--allow-file-access-from-files",
        "--window-size=1300,900",
        "--virtual-time-budget=10000",
        "--dump-dom",
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', out, re.DOTALL)
    assert found, out[-500:]
    return sorted(json.loads(unescape(found[1])), key=lambda f: f["width"])
