"""Writes every document and file that is generated: ``make generate``.

What repeats the fields of `WorkflowEvent` comes before this, by `tools.schemas` in a process of its own: schemas are
read once. What needs real servers has its own commands, see CONTRIBUTING.md.
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from connector.settings import Settings
from tests.chart import tools as chart
from tests.chart import values_schema
from tests.faults import reliability
from tests.servers.errors import ServerError
from tools import contract, dashboard, dictionary, questions, reference, setup_pictures, sinks
from tools.descriptions import asyncapi, openapi
from tools.descriptions.notation import generated

ROOT: Final = Path(__file__).parents[1]

FILES: Final[Mapping[str, Callable[[], str]]] = {
    "avro/README.md": dictionary.render,
    "docs/asyncapi.yaml": lambda: generated(asyncapi.document()),
    "docs/data-contract.yaml": contract.render,
    "docs/metrics.md": reference.metrics_page,
    "docs/openapi.yaml": lambda: generated(openapi.document(Settings())),
    "docs/reliability.md": lambda: reliability.rendered(reliability.read(reliability.DOCUMENT)),
    "docs/reliability.svg": lambda: reliability.picture(reliability.read(reliability.DOCUMENT)),
    "docs/settings.md": reference.settings_page,
    **{f"docs/setup/{name}": draw for name, draw in setup_pictures.PICTURES.items()},
    **{f"docs/{name}": partial(sinks.document, name) for name in sinks.DOCUMENTS},
    "helm/dashboards/weda-connector.json": dashboard.rendered,
    "helm/templates/_variables.tpl": values_schema.variables,
    "helm/values.schema.json": values_schema.rendered,
}
"""Path in the repository → what gives its text. `tools.questions` and helm-docs write theirs themselves."""


def main() -> None:
    """Write everything."""
    for path, text in FILES.items():
        (ROOT / path).write_text(text(), encoding="utf-8")
    with TemporaryDirectory() as data:
        questions.write(questions.HOME, Path(data))
    try:
        chart.HELM_DOCS.install()
        chart.write_readme(ROOT / "helm")
    except ServerError as error:
        sys.stderr.write(f"helm/README.md is left as it is: {error}\n")


if __name__ == "__main__":
    main()
