"""Markdown of prompts and rollouts: safe, and with nothing left out."""

import time

import pytest

from labeler.reading import rendered


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<b onclick=x>bold</b>",
        "<img src=x onerror=y>",
        "a <!-- hidden --> comment",
    ],
)
def test_html_stays_text(text):
    assert text.replace("<", "&lt;").replace(">", "&gt;") in rendered(text)


@pytest.mark.parametrize(
    "text", ["[words](https://example.org/a)", "![seen](https://example.org/b.png)", "[x](javascript:alert)"]
)
def test_links_and_images_stay_as_they_were_written(text):
    html = rendered(text)
    assert text in html and "<a" not in html and "<img" not in html
    assert "&lt;https://example.org&gt;" in rendered("<https://example.org>")
    assert "[x]: https://example.org" in rendered("[x]: https://example.org")


@pytest.mark.parametrize(
    "maths", ["$a_1 * b_2 * c$", "$$x_1 *\ny_2 * z$$", r"\(x_1 * y * z\)", r"\[x_1 * y * z\]", r"$\$5_a * b$"]
)
def test_maths_is_its_source_in_the_style_of_code(maths):
    assert f'<code class="maths">{maths}</code>' in rendered(f"So {maths} holds.")


@pytest.mark.parametrize("text", ["It costs $5 and $6.", "From $ to $ and back", "US$ 5, US$ 6", "a $$ b"])
def test_prices_are_no_maths(text):
    assert rendered(text) == f"<p>{text}</p>\n"


def test_what_text_needs_is_rendered():
    html = rendered(
        "# Title\n\nSome **bold**, `code`,\na line.\n\n> said\n\n1. one\n\n```py\nx < 1\n```\n\n|a|\n|-|\n|1|"
    )
    for part in (
        '<p class="head">Title</p>',
        "<strong>bold</strong>",
        "<code>code</code>",
        "<br>",
        "<blockquote>",
    ):
        assert part in html
    for part in ("<ol>", "x &lt; 1\n</code></pre>", "<td>1</td>"):
        assert part in html
    assert "<h1" not in html and 'class="language' not in html


def test_no_text_takes_long():
    for text in (r"\(" * 20_000, "$" * 20_000, "$a" * 20_000, r"\[$$" * 10_000, "*_" * 5_000):
        begun = time.perf_counter()
        rendered(text)
        assert time.perf_counter() - begun < 5
