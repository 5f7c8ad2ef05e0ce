"""``python -m connector`` is ``weda-connector``."""

from connector.cli import main

main()
