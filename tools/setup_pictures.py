"""Draws the pictures of the guide for process owners, in `docs/setup/`.

They are mock-ups by what WeDa's public documentation says of its pages, not screenshots: each says so. What the reader
has to fill in is framed. Light and dark colours follow the reader's system.
"""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from html import escape
from typing import Final

WIDTH: Final = 660
PADDING: Final = 20
LABEL_WIDTH: Final = 128
SIZE: Final = 14
ROW: Final = 34

_STYLE: Final = """\
svg{--back:#fff;--edge:#d0d7de;--text:#1f2328;--soft:#59636e;--box:#f6f8fa;--mark:#0969da;--good:#1a7f37;--bad:#cf222e}
@media (prefers-color-scheme:dark){svg{--back:#151b23;--edge:#3d444d;--text:#f0f6fc;--soft:#9198a1;--box:#0d1117;\
--mark:#4493f8;--good:#3fb950;--bad:#f85149}}
text{font:14px system-ui,-apple-system,"PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif;fill:var(--text)}
.soft{fill:var(--soft)}.head{font-weight:600}.code{font-family:ui-monospace,Menlo,Consolas,"Noto Sans Mono CJK SC",\
monospace;font-size:13px}.good{fill:var(--good);font-weight:600}.bad{fill:var(--bad);font-weight:600}
.card{fill:var(--back);stroke:var(--edge)}.box{fill:var(--box);stroke:var(--edge)}.mark{stroke:var(--mark);stroke-width:2}
.on{fill:var(--mark)}.line{stroke:var(--edge)}.way{stroke:var(--soft);fill:none;stroke-width:1.5}"""


@dataclass(frozen=True, slots=True)
class Field:
    """A label and a box with a value.

    Attributes:
        label: Left of the box.
        value: What is in it, a line each.
        is_code: In the type of code.
        is_marked: The reader has to fill it in: framed.
    """

    label: str
    value: str
    is_code: bool = True
    is_marked: bool = True


@dataclass(frozen=True, slots=True)
class Switch:
    """A label and a switch that is on."""

    label: str


@dataclass(frozen=True, slots=True)
class Button:
    """A button that the reader presses."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Columns with their names above.

    Attributes:
        names: Of the columns.
        rows: Their cells.
        at: Where each column begins, from the left edge of the card.
    """

    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    at: Sequence[int]


@dataclass(frozen=True, slots=True)
class Note:
    """A line of text; ``kind`` is a class of the style sheet."""

    text: str
    kind: str = "soft"


Part = Field | Switch | Button | Table | Note


@dataclass(frozen=True, slots=True)
class Card:
    """A window with a title.

    Attributes:
        title: Its first line, and what a screen reader says.
        parts: Below it, from the top down.
        is_ours: It shows the connector's own console, not WeDa.
    """

    title: str
    parts: Sequence[Part] = field(default=())
    is_ours: bool = False


TEMPLATE: Final = '{"msgContext": {{params.msgContext}}}'

CARDS: Final = {
    "subscribe": Card(
        "流程属性",
        (
            Switch("流程消息订阅"),
            Field("APIs", "请选择", is_code=False, is_marked=False),
            Button("新建消息订阅 APIs"),
            Note("列表中没有符合命名规则的 APIs 时，点击“新建消息订阅 APIs”，由微搭生成模板。"),
        ),
    ),
    "method": Card(
        "方法",
        (
            Field("方法标识", "messageDeliver"),
            Field("类型", "HTTP 请求", is_code=False, is_marked=False),
            Table(
                ("参数", "标识", "类型", "值来自"),
                (
                    ("入参", "msgContext", "文本", "微搭推送的消息"),
                    ("出参", "code", "数字", "返回 JSON 顶层的 code"),
                    ("出参", "message", "文本", "返回 JSON 顶层的 message"),
                ),
                (20, 110, 260, 360),
            ),
        ),
    ),
    "variable": Card(
        "公共变量",
        (
            Field("变量标识", "wedaToken"),
            Field("变量值", "管理员提供的令牌", is_code=False),
            Note("在请求头中写作 {{vars.wedaToken}}。令牌不要直接写进模板。"),
        ),
    ),
    "request": Card(
        "HTTP 请求",
        (
            Field("请求 URL", "https://weda-events.example.com/messageDeliver"),
            Field("方法 Method", "POST"),
            Field("Header", "Content-Type: application/json"),
            Field("Header", "X-WeDa-Token: {{vars.wedaToken}}"),
            Field("Body 类型", "JSON"),
            Field("Body", TEMPLATE),
            Note("占位符两边没有引号。"),
        ),
    ),
    "test": Card(
        "方法测试",
        (
            Field("msgContext", '{"msgId": "test-1", … "comment": "C++ & 预算+10%20 #A"}'),
            Button("运行测试"),
            Field("返回结果", '{"code": 0}', is_marked=False),
            Note("测试通过：code 为 0", "good"),
        ),
    ),
    "console": Card(
        "连接器控制台 · 请求",
        (
            Note("已接收", "good"),
            Note("POST · application/json · 流程实例 test-1"),
            Note("40003", "bad"),
            Field("原因", "请求体不是 JSON", is_code=False, is_marked=False),
            Field("处理建议", "请去掉占位符两边的引号。", is_code=False, is_marked=False),
            Field("可粘贴的模板", TEMPLATE, is_marked=False),
        ),
        is_ours=True,
    ),
}
"""Each picture's name → what is on it."""

_PATH: Final = (("微搭", "流程消息订阅"), ("连接器", "校验、转换、可靠保存"), ("Kafka", "weda.workflow.events"))
_ARROWS: Final = ("HTTPS POST", "Avro")


def drawn(card: Card) -> str:
    """A card as SVG."""
    pieces: list[str] = []
    y = 52
    for part in card.parts:
        height, shapes = _part(part, y)
        pieces += shapes
        y += height
    source = "连接器界面示意图" if card.is_ours else "示意图，以微搭控制台的实际界面为准"
    pieces.append(_text(PADDING, y + 14, source, "soft", size=12))
    head = [
        f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{y + 27}" rx="8"/>',
        _text(PADDING, 28, card.title, "head"),
        f'<path class="line" d="M0 42H{WIDTH}"/>',
    ]
    return _svg(y + 28, card.title, [*head, *pieces])


def path() -> str:
    """The way of a message, in one line, as SVG."""
    width, pieces = 166, []
    gap = (WIDTH - 3 * width) // 2
    for place, (name, what) in enumerate(_PATH):
        x = place * (width + gap)
        pieces.append(f'<rect class="card" x="{x + 0.5}" y=".5" width="{width - 1}" height="59" rx="8"/>')
        pieces.append(_text(x + width // 2, 25, name, "head", anchor="middle"))
        pieces.append(_text(x + width // 2, 46, what, "soft", anchor="middle", size=11))
    for place, name in enumerate(_ARROWS):
        x = width + place * (width + gap)
        pieces.append(f'<path class="way" d="M{x + 5} 34H{x + gap - 6}m-6 -5 6 5-6 5"/>')
        pieces.append(_text(x + gap // 2, 22, name, "soft", anchor="middle", size=10))
    return _svg(60, "微搭 → 连接器 → Kafka", pieces)


def columns(text: str) -> int:
    """How many columns of a terminal a text takes: Chinese signs take two, which is how wide they are drawn too."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


def _part(part: Part, y: int) -> tuple[int, list[str]]:
    if isinstance(part, Field):
        kind = "box mark" if part.is_marked else "box"
        left = PADDING + LABEL_WIDTH
        box = f'<rect class="{kind}" x="{left}" y="{y + 2}" width="{WIDTH - left - PADDING}" height="28" rx="5"/>'
        value = _text(left + 10, y + 21, part.value, "code" if part.is_code else "")
        return ROW, [_text(PADDING, y + 21, part.label, "soft"), box, value]
    if isinstance(part, Switch):
        left = PADDING + LABEL_WIDTH
        shape = f'<rect class="on" x="{left}" y="{y + 6}" width="38" height="20" rx="10"/>'
        knob = f'<circle cx="{left + 28}" cy="{y + 16}" r="8" fill="#fff"/>'
        return ROW, [_text(PADDING, y + 21, part.label, "soft"), shape, knob, _text(left + 48, y + 21, "开", "soft")]
    if isinstance(part, Button):
        left, width = PADDING + LABEL_WIDTH, columns(part.text) * 8 + 28
        shape = f'<rect class="box mark" x="{left}" y="{y + 2}" width="{width}" height="28" rx="5"/>'
        return ROW + 4, [shape, _text(left + width // 2, y + 21, part.text, "", anchor="middle")]
    if isinstance(part, Table):
        lines = [part.names, *part.rows]
        shapes = [
            _text(left, y + 20 + 28 * row, cell, "soft" if not row or left != part.at[1] else "code")
            for row, cells in enumerate(lines)
            for left, cell in zip(part.at, cells, strict=True)
        ]
        rules = [
            f'<path class="line" d="M{PADDING} {y + 28 * row}h{WIDTH - 2 * PADDING}"/>' for row in range(len(lines))
        ]
        return 28 * len(lines) + 6, [*rules, *shapes]
    return 26, [_text(PADDING, y + 18, part.text, part.kind, size=13)]


def _text(x: int, y: int, text: str, kind: str, *, anchor: str = "", size: int = 0) -> str:
    attributes = [f'class="{kind}"'] if kind else []
    attributes += [f'text-anchor="{anchor}"'] if anchor else []
    attributes += [f'style="font-size:{size}px"'] if size else []
    return f'<text x="{x}" y="{y}" {" ".join(attributes)}>{escape(text, quote=False)}</text>'.replace(" >", ">")


def _svg(height: int, title: str, pieces: Sequence[str]) -> str:
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" lang="zh-CN"><title>{escape(title)}</title><style>{_STYLE}</style>'
    )
    return "\n".join([opening, *pieces, "</svg>", ""])


PICTURES: Final[Mapping[str, Callable[[], str]]] = {
    "path.svg": path,
    **{f"{name}.svg": partial(drawn, card) for name, card in CARDS.items()},
}
"""File → what draws it."""
