"""A real browser on the live server. A script error, or a breach of the content security policy, on any page
fails the test that saw it."""

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # Playwright takes a while to load, and most tests open no page
    from playwright.sync_api import Browser, BrowserContext, Page, Route


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    from tests.browser.chromium import arguments, find

    # Playwright runs an event loop in this thread, which Django would take for asynchronous code.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=arguments())
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser: "Browser", live_server) -> "Iterator[Callable[..., Page]]":
    """Makes pages with options of Playwright's own: `new_page(color_scheme="dark", viewport={…})`."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def make(**options) -> "Page":
        options = {"base_url": live_server.url, "viewport": {"width": 1280, "height": 800}} | options
        context = browser.new_context(**options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None,
        )
        return page

    yield make
    for context in contexts:
        context.close()
    assert not faults


@pytest.fixture
def page(new_page: "Callable[..., Page]") -> "Page":
    return new_page()


@pytest.fixture
def hold(page: "Page") -> "Callable[[str], Callable[[], None]]":
    """`let_go = hold("**/freeze/**")`: the next request to such an address is on its way until `let_go()`."""

    def on_its_way(pattern: str) -> Callable[[], None]:
        held: list[Route] = []
        page.route(pattern, lambda route: route.continue_() if held else held.append(route))
        return lambda: held[0].continue_()

    return on_its_way


@pytest.fixture
def sign_in(live_server) -> Callable:
    """`sign_in(page, user)`: a session without the form, for tests of something else."""
    from django.conf import settings
    from django.test import Client

    def with_session(page: "Page", user) -> None:
        client = Client()
        client.force_login(user)
        value = client.cookies[settings.SESSION_COOKIE_NAME].value
        page.context.add_cookies(
            [{"name": settings.SESSION_COOKIE_NAME, "value": value, "url": live_server.url}]
        )

    return with_session


@pytest.fixture
def plain(new_page: "Callable[..., Page]", admin) -> "Callable[[str], Page]":
    """`plain(address)`: what the admin finds there without JavaScript, signed in by the form."""

    def come_in(address: str) -> "Page":
        from tests.labeler.fixtures import PASSWORD

        page = new_page(java_script_enabled=False)
        page.goto(address)
        page.get_by_label("Username").fill(admin.username)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        return page

    return come_in


@pytest.fixture
def desk(page: "Page", sign_in: Callable, labeler, project) -> "Page":
    """The labeler's page: they are signed in and may rank in the project."""
    sign_in(page, labeler)
    return page
