"""Chinese texts have full-width punctuation and one word for each thing, and the console knows the meaning of codes."""

import re
from pathlib import Path

import pytest

from connector.operations.translations import CHINESE, MEANINGS, meaning
from tools import chinese

ROOT = Path(__file__).parents[2]


def test_every_chinese_text_is_well_written():
    every = list(chinese.texts())
    wrong = [f"{place}: {problem}" for place, text in every for problem in chinese.problems(text)]

    assert len(every) > 400
    assert {place.partition(":")[0] for place, _ in every} >= {
        "README.zh-CN.md",
        "docs/weda-setup.zh-CN.md",
        "docs/connector-setup.zh-CN.md",
        "connector/operations/translations.py",
        "docs/setup/request.svg",
    }
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "一切正常,正在接收消息。",
        "返回码:见下表",
        "微搭 (WeDa) 的流程",
        "微搭(WeDa)的流程",
        "消息已保存.",
        '称为"来源"',
        "写入Kafka",
        *chinese.prose("`attempts`(8 次）\n`--metrics-host`,默认为\n（见 `a`)：下表\n一个 Deployment,`notify`"),
        "共3个副本",
        *(f"这里用{word}一词" for word in chinese.WORDS),
    ],
)
def test_what_is_badly_written_is_found(text):
    assert chinese.problems(text) != []


@pytest.mark.parametrize(
    "text", ["一切正常，正在接收消息。", "写入 Kafka 的 3 个 Topic（见下表）", "不需要另外部署注册中心", "您的主机"]
)
def test_what_is_well_written_is_left_alone(text):
    assert chinese.problems(text) == []


def test_code_and_links_are_not_read():
    document = """\
见[返回码](#4-填写,请求)和 `{"a": "中,文"}`。

```sh
weda-connector demo   # 启动, 结束
```

```json
{"comment": "预算,上调"}
```
"""

    assert chinese.prose(document) == ["见返回码和 C。", "启动, 结束"]


def test_a_code_that_can_be_a_dead_letter_has_a_meaning():
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "connector").rglob("*.py"))]
    used = {int(one) for source in sources for one in re.findall(r"code(?:: int)? ?= ?((?:400|422)\d\d)\b", source)}

    assert len(used) > 12
    assert used - {40090} <= {*MEANINGS}
    assert meaning(40003, "zh") == "请求体不是 JSON"
    assert meaning(40003, "en") == ""


def test_the_stages_are_translated():
    assert {"parse", "convert", "connector"} <= {*CHINESE}
