"""Checks the Chinese of the documents and of the console: ``python -m tools.chinese``, a line for each problem.

Three things: typography by AutoCorrect (spaces between Chinese and Latin, most punctuation), full-width punctuation
where AutoCorrect leaves half-width one, and one word for each thing.
"""

import re
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Final

import autocorrect_py

from connector.operations.translations import CHINESE, MEANINGS

ROOT: Final = Path(__file__).parents[1]

WORDS: Final = {
    "主题": "Topic",
    "模式": "Schema",
    "注册中心": "Schema Registry",
    "应答": "返回、响应",
    "回答": "返回、响应",
    "本地日志": "本地暂存（journal）",
    "压缩主题": "compacted Topic（日志压实）",
    "leader 选举": "unclean leader election",
    "读不懂": "无法解析",
    "捏造": "增改",
    "修复办法": "处理建议",
    "预演": "试运行",
    "退回": "回退",
    "预览环境": "体验环境",
    "连接器缺陷": "内部错误",
    "已接受": "已接收",
    "消息已经安全": "消息已可靠保存",
    "模拟的微搭": "模拟器",
    "告诉微搭": "在微搭中配置",
    "你": "您",
    "「": "“",
    "」": "”",
}
"""A word that is not used → the one that is."""

ALLOWED: Final = ("不需要另外部署注册中心", "您")
"""Texts in which such a word stands for something else."""

_FENCE: Final = re.compile(r"^ *```([\w-]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_COMMENT: Final = re.compile(r"(?:^|\s)(?:#|//) (.*)$", re.MULTILINE)
_SIGN: Final = r"[\u3400-\u4dbf\u4e00-\u9fff]"
_HALF_WIDTH: Final = re.compile(
    rf"{_SIGN}\s?[,;:!?()]|[,;:!?()]\s?{_SIGN}|{_SIGN}\.(?=\s|$)|{_SIGN}\s?\"|\"\s?{_SIGN}"
    r"|\bC[,;:(]|[,;(]C\b|\([^()（）]*）|（[^()（）]*\)"
)


def texts() -> Iterator[tuple[str, str]]:
    """Every Chinese text with its place."""
    for document in sorted([*ROOT.glob("*.zh-CN.md"), *ROOT.glob("docs/**/*.zh-CN.md")]):
        yield from ((f"{document.relative_to(ROOT)}: {line}", line) for line in prose(document.read_text("utf-8")))
    for english, chinese in (*CHINESE.items(), *MEANINGS.items()):
        yield f"connector/operations/translations.py: {english}", chinese
    for picture in sorted(ROOT.glob("docs/setup/*.svg")):
        words = re.findall(r"<text[^>]*>([^<]*)</text>", picture.read_text("utf-8"))
        yield from ((f"{picture.relative_to(ROOT)}: {word}", unescape(word)) for word in words if "{" not in word)


def prose(document: str) -> list[str]:
    """The lines of a Markdown document without what is code: of code blocks its comments, of links their words."""
    document = _FENCE.sub(_prose_of_code, document)
    document = re.sub(r"`[^`\n]+`", "C", document)  # which `_HALF_WIDTH` knows
    document = re.sub(r"\]\([^)\s]*\)", "", document)
    document = re.sub(r"([。：，！？])\*\* ", r"\1", document)  # the space is Markdown's
    return [re.sub(r"\*\*|\[|!\[|<br>", "", line) for line in document.splitlines() if re.search(_SIGN, line)]


def _prose_of_code(block: re.Match[str]) -> str:
    language, text = block.groups()
    return str(text) if language == "text" else "\n".join(_COMMENT.findall(text))


def problems(text: str) -> list[str]:
    """What is wrong with a text, in words."""
    found = [f"half-width {part!r}" for part in _HALF_WIDTH.findall(text)]
    plain = text
    for allowed in ALLOWED:
        plain = plain.replace(allowed, "")
    found += [f"{word}: {better}" for word, better in WORDS.items() if word in plain]
    if (spaced := autocorrect_py.format(text)) != text:
        found.append(f"write {spaced!r}")
    return found


def main() -> int:
    """Print the problems; 1 where there are any."""
    lines = [f"{place}\n    {problem}" for place, text in texts() for problem in problems(text)]
    sys.stderr.writelines(f"{line}\n" for line in lines)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
