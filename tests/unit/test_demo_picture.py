"""The picture of the demo plays what the terminal showed."""

import re

from tools.demo_picture import WIDTH, drawn


def test_each_row_appears_when_its_line_did():
    picture = drawn(["first", "x " * WIDTH, "last"], [0.0, 2.0, 4.0])

    rows = re.findall(r'<text class="(?:at-(\d) )?demo-r\d"[^>]*clip-path="url\(#demo-line-(\d+)\)"', picture)
    moments = {int(row): moment for moment, row in rows}
    assert moments[0] == ""
    assert moments[1] == "0"
    assert moments[2] == moments[max(moments) - 1] == "1"
    assert moments[max(moments)] == "2"
    assert picture.count("@keyframes") == 3
    assert "prefers-reduced-motion: no-preference" in picture
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg|https://www\.textualize\.io", "", picture)
