"""The console's words in Chinese; English is what the pages are written in."""

from collections.abc import Mapping
from typing import Final

LANGUAGES: Final = ("en", "zh")

CHINESE: Final[Mapping[str, str]] = {
    # pages
    "Overview": "概览",
    "Events": "事件",
    "Instance": "流程实例",
    "Requests": "请求",
    "Dead letters": "死信",
    "Topics": "主题",
    "Settings": "设置",
    "Pages": "页面",
    "Skip to the content": "跳到正文",
    "Log in": "登录",
    "Log out": "退出",
    "Metrics": "指标",
    "Pause": "暂停刷新",
    "Go on": "继续刷新",
    "Show": "显示",
    "Show all": "全部显示",
    "Filter": "筛选",
    "Back": "返回",
    "The broker is embedded: records are in memory only and are gone with this process. For a look, not for work.": (
        "当前使用内嵌 broker：记录只在内存中，随进程消失。仅供体验，不可用于生产。"
    ),
    "This page cannot be shown": "无法显示此页面",
    # overview
    "Messages cannot be accepted now.": "目前无法接收消息。",
    "Messages are accepted; something needs attention.": "正在接收消息，但有情况需要关注。",
    "All is well: messages are accepted.": "一切正常，正在接收消息。",
    "To be looked at": "需要关注",
    "Accepted": "接收速率",
    "a second": "条/秒",
    "Last ten minutes; at most": "最近十分钟，最高",
    "Accepted messages a second over the last ten minutes; at most": "最近十分钟每秒接收的消息数，最高",
    "Answered within": "应答耗时不超过",
    "half of them": "一半的请求",
    "99 of 100": "99% 的请求",
    "The brokers acknowledge.": "broker 正常确认。",
    "Nothing is acknowledged now; messages wait in the journal.": "目前没有任何确认，消息在 journal 中等待。",
    "Kafka does not answer; messages wait in the journal.": "Kafka 没有响应，消息在 journal 中等待。",
    "Not reached yet; messages wait in the journal.": "尚未连上，消息在 journal 中等待。",
    "Journal": "本地日志（journal）",
    "Journal in use": "journal 已用",
    "In use": "已用",
    "of": "/",
    "Oldest": "最早的消息已等待",
    "Caught up in": "预计清空",
    "nothing waits": "没有等待的消息",
    "unknown: nothing leaves it now": "未知：目前没有消息离开",
    "Requests since the start": "启动以来的请求",
    "Dead letters by reason": "按原因查看死信",
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
    "failed": "连接器缺陷",
    "brokers": "broker",
    "durability": "持久性",
    "topics": "主题",
    "partitions": "分区",
    "registry": "模式注册中心",
    # events
    "What this connector accepted last, newest first, since its start.": "此连接器启动以来最近接收的事件，最新的在前。",
    "Nothing yet. As soon as WeDa sends something, it appears here.": "还没有。微搭一发送，就会出现在这里。",
    "Received": "接收时间",
    "Process": "流程",
    "What": "操作",
    "Node": "节点",
    "State": "状态",
    "Source": "来源",
    "Task": "任务",
    # instance
    "instanceId": "instanceId",
    "Read from Kafka by key. Looks at the last records of each partition, at most:": (
        "按键从 Kafka 读取。每个分区最多查看最近的记录数："
    ),
    "No record of this instance among them.": "其中没有此流程实例的记录。",
    "The way through the nodes": "经过的节点",
    "The way through the nodes; the list below says the same": "经过的节点；下面的列表内容相同",
    "From the top down, a column for each node. Dashed: sent back or withdrawn.": (
        "自上而下为时间顺序，每个节点一列。虚线：退回或撤回。"
    ),
    "back to": "退回到",
    "task took": "任务耗时",
    "cut here: the whole record": "此处已截断：查看完整记录",
    "From the first step": "从第一步开始",
    "Later steps": "后面的步骤",
    # requests
    "The last requests of a source as they arrived: what they looked like, what was missing, how to mend it. "
    "They are in memory only.": (
        "某个来源最近的请求，保持收到时的样子：是什么形式、缺少什么、如何修复。只保存在内存中。"
    ),
    "Nothing yet. Press test in WeDa: what arrives appears here. Requests without a valid token are not kept, "
    "only counted.": "还没有。请在微搭中点击测试，收到的内容会显示在这里。没有有效令牌的请求不保存，只计数。",
    "no Content-Type": "没有 Content-Type",
    "Shape": "形式",
    "Missing": "缺少",
    "Answer": "应答",
    "Fix": "修复办法",
    "Template": "可粘贴的模板",
    "As it arrived": "收到的内容",
    "As it reads": "解读后的内容",
    "The whole, as far as it is kept": "完整内容（以保存的部分为限）",
    "Cut here: the whole as it arrived": "此处已截断：查看收到的完整内容",
    "not readable": "无法读取",
    "a form": "表单",
    "a query": "查询参数",
    "JSON": "JSON",
    "JSON text of JSON text": "JSON 文本套 JSON 文本",
    "the message alone": "只有消息本身",
    "an envelope with JSON text": "外层对象，内含 JSON 文本",
    "an envelope with an object": "外层对象，内含对象",
    "Use the template below, the placeholder without quotes, and Content-Type: application/json.": (
        "使用下面的模板，占位符不加引号，并设置 Content-Type: application/json。"
    ),
    "Send the header X-WeDa-Token with the token of this source.": "请求头 X-WeDa-Token 应为此来源的令牌。",
    "Send less, or raise the limit that the answer names.": "减小内容，或提高应答中指出的上限。",
    "Pass the whole msgContext on, unchanged; what the answer names is missing or of the wrong type.": (
        "原样传递整个 msgContext；应答中指出的字段缺失或类型不对。"
    ),
    "Send it again a second later.": "一秒后重发。",
    "Tell whoever looks after the connector: this is a defect.": "请告诉连接器的维护者：这是一个缺陷。",
    "Bring Kafka back, or give the journal room: see the overview.": "恢复 Kafka，或为 journal 腾出空间：见概览。",
    "The quotes inside the placeholder were not escaped: take the quotes around the placeholder away.": (
        "占位符中的引号没有被转义：请去掉占位符两边的引号。"
    ),
    "Allow this envType for the source (env_types in WEDA_SOURCES), or send from another environment.": (
        "为该来源放开此 envType（WEDA_SOURCES 中的 env_types），或从其他环境发送。"
    ),
    # dead letters
    "Dead letter": "死信",
    "What was let in and could not become a record: kept byte for byte, with the reason.": (
        "已经放行但无法成为记录的请求：逐字节保存，并注明原因。"
    ),
    "None. Everything that was let in became a record.": "没有。所有放行的请求都成为了记录。",
    "By reason": "按原因",
    "The latest": "最近的",
    "waiting": "待处理",
    "replayed": "已重放",
    "Code": "code",
    "Stage": "阶段",
    "Reason": "原因",
    "Attempt": "尝试次数",
    "Bytes": "内容",
    "First bytes": "开头的字节",
    "Dry run of a replay of these": "试运行：重放这些死信",
    "Nothing is replayed yet: first you see what it would come to.": "此时还不会重放，先看看结果会怎样。",
    "Dry run": "试运行",
    "Nothing was done. This is what a replay would come to; dead letters:": (
        "没有执行任何操作。重放的结果将会如下，死信数："
    ),
    "Replay now": "立即重放",
    "A replay would mend nothing now.": "现在重放不会有任何改善。",
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
    "tried too often: left alone": "尝试次数过多，不再处理",
    # topics
    "Topics and schemas": "主题与模式",
    "The topics of the embedded broker make themselves and cannot be described.": (
        "内嵌 broker 的主题会自动创建，无法查看详情。"
    ),
    "Topic": "主题",
    "Brokers that do not answer:": "没有响应的 broker：",
    "not reached": "未连上",
    "too few replicas in sync: it takes no record now": "同步副本不足：目前无法写入",
    "replicas are missing": "缺少副本",
    "Partitions": "分区",
    "Replicas": "副本",
    "Kept": "保留",
    "durable": "持久",
    "one broker can lose it": "失去一个 broker 就可能丢失",
    "missing": "缺失",
    "the last of each key": "每个键的最后一条",
    "for ever": "永久",
    "Schemas": "模式",
    "Record": "记录",
    "Fingerprint": "指纹",
    "Id in the registry": "注册中心中的 id",
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
    "there is no such place in a topic": "主题中没有这个位置",
    "this request is not kept any more": "此请求已不再保存",
    "Kafka does not answer: what is in its topics cannot be shown now.": "Kafka 没有响应：现在无法显示主题中的内容。",
    "others are reading the topics: ask again in a few seconds": "其他人正在读取主题：请几秒后再试",
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


def translated(text: str, language: str) -> str:
    """A text of the pages in a language; what comes from elsewhere, such as an answer, stays as it is."""
    return CHINESE.get(text, text) if language == "zh" else text


def language_of(chosen: str | None, accepted: str | None) -> str:
    """The language of a page: the one that was chosen, else the first of the browser's that there is, else English."""
    if chosen in LANGUAGES:
        return str(chosen)
    weighed = sorted((_weighed(one) for one in (accepted or "").split(",")), key=lambda one: -one[1])
    known = (name.partition("-")[0] for name, weight in weighed if weight > 0)
    return next((name for name in known if name in LANGUAGES), LANGUAGES[0])


def _weighed(text: str) -> tuple[str, float]:
    name, _, weight = text.strip().lower().partition(";q=")
    try:
        return name, float(weight or 1)
    except ValueError:
        return name, 0.0
