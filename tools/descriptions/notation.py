"""A description as a tree of plain values, and the tree as YAML."""

from typing import Any, Final

import yaml

Document = dict[str, Any]
"""Plain values only: what JSON has, in the order in which it is to be read."""

_WIDTH: Final = 110
_LONGEST_WORD: Final = 60


def yaml_text(document: Document) -> str:
    """The document as YAML in its own order: no aliases, no tags, lines of readable length."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)


def prose(text: str) -> str:
    """The same paragraphs, each on one line: how the source is wrapped is nothing to the reader."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


class _Dumper(yaml.SafeDumper):
    """Writes what is used twice twice, and lists below their key, indented."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - of no value
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - PyYAML's
        super().increase_indent(flow, False)  # noqa: FBT003 - PyYAML's signature


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=_style(text))


def _style(text: str) -> str | None:
    """Folded where there are paragraphs; quoted where a line could not be broken between words."""
    if "\n" in text:
        return ">"
    return '"' if any(len(word) > _LONGEST_WORD for word in text.split(" ")) else None


_Dumper.add_representer(str, _text)
