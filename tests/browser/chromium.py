"""Which browser the tests drive: QUINTET_CHROMIUM, else a Chromium on the PATH, else Playwright's own.

As a program, which is how bin/test asks, it also installs one where it may and prints its path; it fails in
words where none can be had."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


# What suggests addresses to whoever types one is a page, in a process, for every window: a third of all the
# browser's work. Playwright's own list is replaced by this one; the others are of it.
UNWANTED = "WebUIOmniboxPopup,WebUIOmniboxAimPopup,HttpsUpgrades,PaintHolding,DestroyProfileOnBrowserClose"


def arguments() -> list[str]:
    quiet = ["--disable-gpu", "--disable-background-networking", f"--disable-features={UNWANTED}"]
    return ["--no-sandbox", *quiet] if os.geteuid() == 0 else quiet


def works(path: str | os.PathLike | None) -> bool:
    """Whether it starts: one whose system libraries are missing is there and does not."""
    if not path or not Path(path).exists():
        return False
    command = [path, "--headless", *arguments(), "--dump-dom", "about:blank"]
    try:
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def playwrights_own() -> str:
    with sync_playwright() as playwright:
        return playwright.chromium.executable_path


def find() -> str | None:
    """None means Playwright's own, where nothing better is known."""
    named = os.environ.get("QUINTET_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


def find_or_install() -> str | None:
    candidates = [os.environ.get("QUINTET_CHROMIUM"), *map(shutil.which, NAMES)]
    for candidate in candidates:
        if works(candidate):
            return candidate
    if works(playwrights_own()):
        return playwrights_own()
    print("No Chromium on the PATH: asking Playwright for its own.", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], stdout=sys.stderr)
    if works(playwrights_own()):
        return playwrights_own()
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("Playwright's does not run here: installing the distribution's Chromium.", file=sys.stderr)
        subprocess.run(["apt-get", "update", "-qq"], stdout=sys.stderr)
        subprocess.run(
            ["apt-get", "install", "-qq", "--no-install-recommends", "chromium"], stdout=sys.stderr
        )
        if works(shutil.which("chromium")):
            return shutil.which("chromium")
    return None


if __name__ == "__main__":
    browser = find_or_install()
    if not browser:
        sys.exit(
            "The browser tests need a Chromium and none could be had: install one (on Debian: apt install "
            "chromium) so that it is on the PATH, or name it in QUINTET_CHROMIUM."
        )
    print(browser)
