"""The console's texts in Chinese; the pages themselves are in English."""

import re
from collections.abc import Mapping
from typing import Final

LANGUAGES: Final = ("en", "zh")

CHINESE: Final[Mapping[str, str]] = {
    # pages
    "Overview": "概览",
    "Events": "事件",
    "Instance": "流程实例",
    "Instances": "流程实例",
    "Requests": "请求",
    "Dead letters": "死信",
    "Topics": "Topic",
    "Settings": "设置",
    "Setting": "设置项",
    "Value": "值",
    "Origin": "来源",
    "default": "默认值",
    "Pages": "页面",
    "Skip to the content": "跳到正文",
    "Log in": "登录",
    "Log out": "退出",
    "Metrics": "指标",
    "Pause": "暂停刷新",
    "Resume": "继续刷新",
    "Copy": "复制",
    "Copied": "已复制",
    "Search": "搜索",
    "Find an instance": "查找流程实例",
    "Title, process, person, or part of an id": "标题、流程、人员或 id 的一部分",
    "Processes": "流程统计",
    "there is no such page": "没有这个页面",
    "Show": "显示",
    "Show all": "全部显示",
    "Filter": "筛选",
    "Back": "返回",
    "The broker is embedded: records are in memory only and are gone with this process. For demonstration only.": (
        "当前使用内嵌 broker：记录只在内存中，随进程消失。仅供体验，不可用于生产。"
    ),
    "This page cannot be shown": "无法显示此页面",
    # overview
    "Messages cannot be accepted now.": "目前无法接收消息。",
    "Messages are accepted; something needs attention.": "正在接收消息，但有问题需要处理。",
    "All is well: messages are accepted.": "一切正常，正在接收消息。",
    "Messages are accepted; dead letters wait for somebody.": "正在接收消息，有死信等待处理。",
    "Needs attention": "待处理的问题",
    "in the last minute": "最近一分钟",
    "not replayed yet": "尚未重放",
    "Time range": "时间范围",
    "15m": "15 分钟",
    "2h": "2 小时",
    "24h": "24 小时",
    "48h": "48 小时",
    "Messages": "消息",
    "Waiting in the journal": "journal 中等待的消息",
    "messages": "条",
    "Response time": "响应耗时",
    "ms": "毫秒",
    "New dead letters": "新增死信",
    "a minute": "条/分钟",
    "new": "新增",
    "now": "当前",
    "at most": "最高",
    "Outages in this time": "此时间段内的中断",
    "Nothing was accepted.": "无法接收消息。",
    "Kafka did not acknowledge; messages waited in the journal.": "Kafka 没有确认，消息在 journal 中等待。",
    "could not be read or converted": "无法解析或转换",
    "Accepted": "接收速率",
    "a second": "条/秒",
    "The brokers acknowledge.": "broker 正常确认。",
    "Nothing is acknowledged now; messages wait in the journal.": "Kafka 目前没有确认，消息在 journal 中等待。",
    "Kafka does not answer; messages wait in the journal.": "Kafka 没有响应，消息在 journal 中等待。",
    "Not reached yet; messages wait in the journal.": "尚未连接，消息在 journal 中等待。",
    "Journal": "本地暂存（journal）",
    "Journal in use": "journal 已用",
    "In use": "已用",
    "of": "/",
    "Oldest": "最早的消息已等待",
    "Time to empty": "预计清空",
    "nothing waits": "没有等待的消息",
    "unknown: nothing leaves it now": "未知：目前没有消息写出",
    "Requests since the start": "启动以来的请求",
    "up": "正常",
    "stalled": "停滞",
    "down": "不可达",
    "connecting": "连接中",
    "ok": "正常",
    "full": "已满",
    "failing": "故障",
    "accepted": "已接收",
    "duplicate": "重复",
    "dead_lettered": "死信",
    "rejected": "拒绝（凭据、地址、大小等）",
    "refused": "暂不接收",
    "failed": "内部错误",
    "brokers": "broker",
    "durability": "持久性",
    "topics": "Topic",
    "partitions": "分区",
    "registry": "Schema Registry",
    "journal": "本地暂存（journal）",
    "log": "日志",
    "parts": "组件",
    "publishing": "写入 Kafka",
    "replica": "副本",
    "restart": "需要重启",
    # events
    "What this connector accepted last, newest first, since its start.": "此连接器启动以来最近接收的事件，最新的在前。",
    "Nothing yet. As soon as WeDa sends something, it appears here.": "暂无数据，收到推送后自动显示。",
    "Received": "接收时间",
    "Process": "流程",
    "Person": "人员",
    "Action": "操作",
    "None of the events that are kept.": "保留的事件中没有符合条件的。",
    "Node": "节点",
    "State": "状态",
    "Source": "来源",
    "Task": "任务",
    # instances
    "Instances in the index:": "索引中的流程实例：",
    "everything that Kafka has": "包含 Kafka 中的全部内容",
    "not all that Kafka has": "未包含 Kafka 中的全部内容",
    "complete since": "完整覆盖自",
    "Kafka is still being read: load the page again in a moment": "仍在读取 Kafka：请稍后重新加载",
    "The index could not be brought up to date:": "索引未能更新：",
    "Not among these? Look it up in Kafka, by instanceId, msgId, part of a title or request id": (
        "不在其中？在 Kafka 中按 instanceId、msgId、标题的一部分或请求 id 查找"
    ),
    "ended": "已结束",
    "in progress": "进行中",
    "started by": "发起人",
    "Started by": "发起人",
    "Started": "发起时间",
    "Total time": "总耗时",
    "Elapsed": "已用时间",
    "waits for": "等待",
    "Waits for": "等待处理人",
    "since": "自",
    "Waited longest at": "停留最久的节点",
    "Time at each node": "各节点停留时间",
    "waits": "等待中",
    "sent back": "已回退",
    "longest": "最久",
    # processes
    "How long processes and their nodes take, where they are sent back, and who is waited for.": (
        "各流程及其节点的耗时、回退次数，以及正在等待谁处理。"
    ),
    "Time from start to end": "从发起到结束的时间",
    "Ended": "已结束",
    "In progress": "进行中",
    "Median": "中位数",
    "Slowest nodes": "最慢的节点",
    "Visits": "次数",
    "Who is waited for": "等待谁处理",
    "Longest since": "最早自",
    "nobody": "无",
    "Sent back": "回退",
    "Times": "次数",
    "never": "从未",
    # instance
    "instanceId, msgId, part of a title, or request id": "instanceId、msgId、标题的一部分或请求 id",
    "An instance is read from the partition of its key; everything else is looked for in all of them.": (
        "流程实例从其键所在的分区读取；其他内容在所有分区中查找。"
    ),
    "Read every partition (some were added)": "读取所有分区（增加过分区时）",
    "never came: the connector has accepted no message of it, and has kept none as a dead letter": (
        "从未到达：连接器没有接收过它的任何消息，也没有将其保留为死信"
    ),
    "not found, and not everything was searched": "没有找到，但并未搜索全部内容",
    "Request": "请求",
    "code": "code",
    "Found": "查找结果",
    "published": "已发布",
    "dead letter": "死信",
    "Searched": "搜索范围",
    "records": "条记录",
    "The way through the nodes": "经过的节点",
    "The way through the nodes; the list below says the same": "经过的节点；下面的列表内容相同",
    "From the top down, a column for each node. Dashed: sent back or withdrawn.": (
        "自上而下为时间顺序，每个节点一列。虚线：回退或撤回。"
    ),
    "back to": "回退到",
    "task took": "任务耗时",
    "truncated; show the whole record": "此处已截断：查看完整记录",
    "From the first step": "从第一步开始",
    "Later steps": "后面的步骤",
    "Not all records of this instance were read in the time that a search has: later steps may be missing, and the "
    "state may be out of date. weda-connector instance has more time.": (
        "搜索时间已到，未能读完该流程实例的全部记录：后面的步骤可能缺失，状态也可能不是最新的。"
        "weda-connector instance 命令的时限更长。"
    ),
    # requests
    "The last requests of a source as they arrived: what they looked like, what was missing, how to mend it. "
    "They are in memory only; failed ones are kept longer.": (
        "某个来源最近的请求，保持收到时的样子：消息格式、缺少的字段、处理建议。只保存在内存中，失败的请求保留更久。"
    ),
    "Only failed ones": "仅失败的请求",
    "No failed request.": "没有失败的请求。",
    "Set up WeDa": "配置微搭",
    "What to enter in WeDa, to copy. Then run the method's test in WeDa: its request appears at the foot of this "
    "page.": ("以下内容可复制到微搭中。然后在微搭中运行方法测试，收到的请求会显示在本页底部。"),
    "Public address of the connector": "连接器的公网地址",
    "URL": "URL",
    "Method": "请求方法",
    "Header: name and value": "Header：名称和值",
    "Body (type JSON)": "Body（类型选 JSON）",
    "In WeDa, make a variable wedaToken with the token of this source; the token is not shown here.": (
        "请在微搭中新建变量 wedaToken，值为此来源的令牌；令牌不在此处显示。"
    ),
    "Requests that have arrived since": "此后收到的请求：",
    "Waiting for the first request of this source. Requests without a valid token are not shown.": (
        "正在等待此来源的第一个请求。没有有效令牌的请求不显示。"
    ),
    "Nothing yet. Press test in WeDa: what arrives appears here. Requests without a valid token are not kept, "
    "only counted.": "暂无数据。请在微搭中运行方法测试，收到的内容会自动显示。没有有效令牌的请求不保存，仅计数。",
    "no Content-Type": "没有 Content-Type",
    "Shape": "消息格式",
    "Missing": "缺少",
    "Answer": "返回",
    "Fix": "处理建议",
    "As it arrived": "收到的内容",
    "As it reads": "解析结果",
    "The whole, as far as it is kept": "完整内容（以保存的部分为限）",
    "Truncated: show the whole as it arrived": "此处已截断：查看收到的完整内容",
    "not readable": "无法读取",
    "a form": "表单",
    "a query": "查询参数",
    "JSON": "JSON",
    "JSON text of JSON text": "JSON 文本套 JSON 文本",
    "the message alone": "只有消息本身",
    "an envelope with JSON text": "msgContext 为 JSON 文本",
    "an envelope with an object": "msgContext 为对象",
    "Use the template below, the placeholder without quotes, and Content-Type: application/json.": (
        "使用下面的模板，占位符不加引号，并设置 Content-Type: application/json。"
    ),
    "Send the header X-WeDa-Token with the token of this source.": "请求头 X-WeDa-Token 应为此来源的令牌。",
    "Send less, or raise the limit that the answer names.": "减小内容，或提高返回信息中指出的上限。",
    "Pass the whole msgContext on, unchanged; what the answer names is missing or of the wrong type.": (
        "原样传递整个 msgContext；返回信息中指出的字段缺失或类型不对。"
    ),
    "Send it again a second later.": "一秒后重发。",
    "Report this to the connector's operator: it is a bug.": "连接器内部错误，请告诉管理员。",
    "Bring Kafka back, or give the journal room: see the overview.": "恢复 Kafka，或为 journal 腾出空间：见概览。",
    "The quotes inside the placeholder were not escaped: take the quotes around the placeholder away.": (
        "占位符中的引号没有被转义：请去掉占位符两边的引号。"
    ),
    "Allow this envType for the source (env_types in WEDA_SOURCES), or send from another environment.": (
        "为该来源放开此 envType（WEDA_SOURCES 中的 env_types），或从其他环境发送。"
    ),
    # dead letters
    "Dead letter": "死信",
    "Authenticated requests that could not be converted: kept byte for byte, with the reason.": (
        "通过认证但无法转换为记录的请求：逐字节保留，并附上原因。"
    ),
    "None. Everything that was let in became a record.": "暂无死信，所有放行的请求都已转换为记录。",
    "By cause": "按原因",
    "Reasons": "详细原因",
    "Of the latest": "最近的",
    "Waiting": "待处理",
    "Replayed": "已重放",
    "Dry run of a replay of this one": "试运行重放此条",
    "waiting": "待处理",
    "replayed": "已重放",
    "Code": "code",
    "Stage": "阶段",
    "Reason": "原因",
    "Attempt": "尝试次数",
    "Bytes": "内容",
    "First bytes": "前若干字节",
    "Dry run of a replay of these": "试运行重放",
    "Nothing is replayed yet: first you see what it would come to.": "试运行不会写入任何内容，只显示重放的结果。",
    "Dry run": "试运行",
    "Nothing was done. This is what a replay would come to; dead letters:": (
        "未执行任何操作。以下是重放的预计结果，死信数："
    ),
    "Replay now": "立即重放",
    "A replay would not fix any of these.": "重放仍会失败，请先修复原因。",
    "Replay": "重放",
    "Stop": "停止",
    "Nothing was replayed since the connector's start.": "连接器启动以来没有重放过。",
    "The replay is running.": "正在重放。",
    "The replay has ended.": "重放已完成。",
    "The replay was stopped; start it again to go on.": "重放已停止，再次启动即可继续。",
    "The replay broke off; start it again to go on.": "重放中断，再次启动即可继续。",
    "accepted before: nothing is published": "此前已接收，不再发布",
    "fail again: each becomes a new dead letter": "再次失败，各成为一条新的死信",
    "stay as they are": "保持原样",
    "held back behind one of their instance that fails": "同一实例中前一条失败，暂缓",
    "parse": "解析",
    "convert": "转换",
    "connector": "连接器",
    "tried too often: left alone": "尝试次数过多，不再重放",
    # topics
    "Topics and schemas": "Topic 与 Schema",
    "The embedded broker creates its topics automatically; they cannot be described.": (
        "内嵌 broker 的 Topic 会自动创建，无法查看详情。"
    ),
    "Topic": "Topic",
    "Brokers that do not answer:": "没有响应的 broker：",
    "not reached": "无法连接",
    "too few replicas in sync: it takes no record now": "同步副本不足：目前无法写入",
    "replicas are missing": "缺少副本",
    "Partitions": "分区",
    "Retention": "保留",
    "Records": "记录数",
    "In sync": "同步副本",
    "min": "最少",
    "Lag of": "积压：",
    "Lag of consumer groups, comma-separated": "查看消费组的积压，用逗号分隔",
    "Records: offsets that are there. The rate is that since the page was loaded last. In sync: replicas of the "
    "partition that has the fewest, on brokers that answer; min is min.insync.replicas.": (
        "记录数：现有的 offset 数量。速率：自上次加载页面以来。同步副本：取最少的分区，只计有响应的 broker；"
        "最少为 min.insync.replicas。"
    ),
    "durable": "持久",
    "one broker can lose it": "失去一台 broker 就可能丢失",
    "missing": "缺失",
    "the last of each key": "每个键的最后一条",
    "for ever": "永久",
    "Schemas": "Schema",
    "Record": "记录",
    "Fingerprint": "指纹",
    "Id in the registry": "Schema Registry 中的 id",
    # settings, login, problems
    "What is in effect, secrets redacted. They are set at the start: environment over file over default.": (
        "当前生效的设置，机密已隐去。设置在启动时确定：环境变量优先于文件，文件优先于默认值。"
    ),
    "The console shows contents of messages: it asks for the token of the operations listener "
    "(WEDA_OPERATIONS__TOKEN).": "控制台会显示消息内容，因此需要运维端口的令牌（WEDA_OPERATIONS__TOKEN）。",
    "This is not the token.": "令牌不正确。",
    "Token": "令牌",
    "there is no such dead letter, or none any more": "没有这条死信，或已不存在",
    "there is no such record, or none any more": "没有这条记录，或已不存在",
    "there is no such place in a topic": "Topic 中没有这个位置",
    "this request is not kept any more": "此请求已不再保存",
    "Kafka does not answer: what is in its topics cannot be shown now.": (
        "Kafka 没有响应：现在无法显示 Topic 中的内容。"
    ),
    "others are reading the topics: ask again in a few seconds": "其他人正在读取 Topic：请几秒后再试",
    "There are more in the journal; they wait for Kafka and are not counted here:": (
        "journal 中还有等待 Kafka 的死信，未计入此处："
    ),
    "at": "位置",
    "there is no such file": "没有这个文件",
    "the form is too large": "表单太大",
    "the form comes from another site": "表单来自其他网站",
    "the form is of another session: go back, load the page again and repeat it": (
        "表单属于另一个会话：请返回，重新加载页面后再试"
    ),
    "a code is a number such as 42201, or 422 for all that begin so": (
        "code 是数字，例如 42201，或用 422 表示所有以此开头的"
    ),
    "the connector is starting: ask again": "连接器正在启动，请稍后再试",
    "a replay is running: wait for its end, or stop it": "正在重放：请等待结束，或先停止",
}

MEANINGS: Final[Mapping[int, str]] = {
    40000: "请求体为空",
    40001: "表单太大",
    40002: "请求体不是 UTF-8",
    40003: "请求体不是 JSON",
    40004: "请求体中没有 msgContext",
    40005: "JSON 嵌套太深",
    40006: "数字太大",
    40007: "元素太多或文本太长",
    41300: "消息太大",
    41500: "Content-Type 不受支持",
    42200: "字段的值无法读取",
    42201: "该来源不允许这个 envType",
    42202: "msgType 不是 Instance 或 Task",
    42203: "没有 instanceId",
    42204: "字段的值类型不对",
    42205: "文本中有不完整的字符",
    42206: "日期超出范围",
    42207: "标识太长",
    42900: "同时到达的消息太多",
    50000: "连接器内部错误",
    50300: "Kafka 和本地暂存均不可写，消息未被接收",
    50301: "结果未知：消息可能已经写入",
}
"""Code → its meaning in Chinese; in English the error's own text says it, with the details."""

PROBLEMS: Final = tuple(
    (re.compile(f"{english}(?P<rest>.*)", re.DOTALL), chinese)
    for english, chinese in (
        ("weaker than 3 replicas and 2 in sync: ", "副本少于 3 个，或 min.insync.replicas 小于 2："),
        ("missing: ", "缺失："),
        (r"(?P<topic>\S+) went from (?P<before>\d+) to (?P<after>\d+)", "{topic} 的分区数从 {before} 变为 {after}"),
        ("cannot reach Kafka: ", "无法连接 Kafka："),
        (r"cannot read the topic (?P<topic>\S+): Kafka is not reachable: ", "无法读取 Topic {topic}，Kafka 无法连接："),
        ("ended: ", "已停止运行："),
        (r"given up after (?P<seconds>\S+) s", "已在 {seconds} 秒后停止读取"),
        ("restarted after a failure: ", "发生故障后已重启："),
        ("it has other ids now for ", "以下 subject 的 id 已改变："),
        ("changed, and in effect only after a restart: ", "已修改，重启后才生效："),
        ("it does not answer", "没有响应"),
        (r"(?P<path>\S+) was deleted or moved away", "{path} 被删除或移走"),
        (r"(?P<path>\S+) was replaced", "{path} 被替换"),
        (
            "the reader of standard error does not read: lines of the log are dropped; restart the log's reader",
            "标准错误输出没有被读取，日志行正在丢弃：请重启读取日志的程序",
        ),
        (
            r"standard error cannot be written \((?P<error>.*)\): lines of the log are dropped",
            "标准错误输出无法写入（{error}），日志行正在丢弃",
        ),
        (
            "Kafka answers another replica and not this one, which accepts nothing: check its network and its node",
            "Kafka 响应其他副本，但不响应此副本；此副本不接收消息：请检查它的网络和节点",
        ),
    )
)
"""Pattern of a text in `Health.problems` or `Coverage.note` → its Chinese; details that follow it stay as they are."""


def problem(text: str, language: str) -> str:
    """Translate a problem; one without a translation stays as it is."""
    for english, chinese in PROBLEMS if language == "zh" else ():
        match = english.fullmatch(text)
        if match is not None:
            return chinese.format(**match.groupdict()) + match["rest"]
    return text


def meaning(code: int, language: str) -> str:
    """Return the meaning of a code in a language; empty if the error's own text says it."""
    return MEANINGS.get(code, "") if language == "zh" else ""


def translated(text: str, language: str) -> str:
    """Translate a text of the pages; a text from elsewhere, such as an answer, stays as it is."""
    return CHINESE.get(text, text) if language == "zh" else text


def language_of(chosen: str | None, accepted: str | None) -> str:
    """Return the language of a page: the chosen one, else the browser's first that is available, else English."""
    if chosen in LANGUAGES:
        return str(chosen)
    weighted = sorted((_weighted(entry) for entry in (accepted or "").split(",")), key=lambda entry: -entry[1])
    # q=0 excludes a language; of zh-CN and zh-TW only the language counts.
    names = (name.partition("-")[0] for name, weight in weighted if weight > 0)
    return next((name for name in names if name in LANGUAGES), LANGUAGES[0])


def _weighted(text: str) -> tuple[str, float]:
    name, _, weight = text.strip().lower().partition(";q=")
    try:
        return name, float(weight or 1)
    except ValueError:
        return name, 0.0
