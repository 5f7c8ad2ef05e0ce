"""`make generate` would change nothing. What `tools.schemas` and `tools.questions` write has tests of its own."""

import pytest

from tools import generate


@pytest.mark.parametrize("path", generate.FILES)
def test_a_generated_file_is_what_make_generate_writes(path):
    assert (generate.ROOT / path).read_text(encoding="utf-8") == generate.FILES[path]()
