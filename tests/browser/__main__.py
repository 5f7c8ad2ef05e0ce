"""``python -m tests.browser``: install what the console's tests need."""

from tests.browser import executable, install, rules

install()
executable()
rules()
