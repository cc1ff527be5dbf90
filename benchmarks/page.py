"""The ranking page as a real browser loads it cold: bytes over the wire and requests, told by Chromium.

Bytes are those that came over the network, headers included and as compressed; nothing is in any cache.
"""

from playwright.sync_api import sync_playwright

from benchmarks.installation import Unexpected, Visitor, installation
from benchmarks.report import Figures, Rows, main
from tests.browser.chromium import arguments, find

ADDRESS = "/rank/pelican-jokes/"
SETTLED = 1500  # milliseconds after the load event in which nothing more should come


def measure() -> tuple[Figures, Rows]:
    with installation() as quintet, sync_playwright() as playwright:
        cookies = Visitor(quintet.url).sign_in().cookies
        browser = playwright.chromium.launch(executable_path=find(), args=arguments())
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        context.add_cookies(
            [{"name": name, "value": value, "url": quintet.url} for name, value in cookies.items()]
        )
        page = context.new_page()
        asked: dict[str, str] = {}
        came: dict[str, int] = {}
        wire = context.new_cdp_session(page)
        wire.on(
            "Network.requestWillBeSent",
            lambda each: asked.update({each["requestId"]: each["request"]["url"]}),
        )
        wire.on(
            "Network.loadingFinished",
            lambda each: came.update({each["requestId"]: each["encodedDataLength"]}),
        )
        wire.send("Network.enable")
        page.goto(quintet.url + ADDRESS, wait_until="load")
        page.wait_for_timeout(SETTLED)
        shown = page.locator("#quintet .card").count()
        browser.close()
    wired = {key: url.removeprefix(quintet.url) for key, url in asked.items() if not url.startswith("data:")}
    files = {url: int(came.get(key, 0)) for key, url in wired.items()}
    total = sum(files.values())
    if not shown:
        raise Unexpected("The page shows no quintet.")
    figures = {"bytes": total, "requests": len(wired), "cards": shown, "files": files}
    rows = [(url, f"{size:,} bytes") for url, size in files.items()]
    return figures, [*rows, ("all", f"{total:,} bytes in {len(wired)} requests")]


if __name__ == "__main__":
    main("page", "Bytes and requests of the ranking page, loaded cold.", measure)
