"""The processes and people of the simulated company."""

from dataclasses import dataclass
from enum import Enum
from typing import Final


@dataclass(frozen=True, slots=True)
class Person:
    """Someone who starts an instance, decides on it or gets a copy."""

    id: str
    name: str


class NodeType(Enum):
    """What happens at a node; the value is WeDa's type and the type's name."""

    START = ("StartEvent", "开始节点")
    APPROVAL = ("UserTask", "审批节点")
    HANDLING = ("HandleTask", "处理节点")
    COPY = ("CcTask", "抄送节点")


@dataclass(frozen=True, slots=True)
class Node:
    """One step of a process; ``persons`` is the number of people who decide together."""

    id: str
    name: str
    type: NodeType
    persons: int = 1


@dataclass(frozen=True, slots=True)
class Process:
    """A kind of process: the first node is the start, two or more are approvals, one is handled, one is a copy."""

    key: str
    name: str
    nodes: tuple[Node, ...]
    subjects: tuple[str, ...]


def _start(name: str) -> Node:
    return Node("StartEvent_1", name, NodeType.START)


def _approval(node_id: str, name: str, persons: int = 1) -> Node:
    return Node(f"UserTask_{node_id}", name, NodeType.APPROVAL, persons)


def _handling(node_id: str, name: str) -> Node:
    return Node(f"HandleTask_{node_id}", name, NodeType.HANDLING)


def _copy(node_id: str, name: str) -> Node:
    return Node(f"CcTask_{node_id}", name, NodeType.COPY)


PROCESSES: Final = (
    Process(
        "flow_leave_1k3",
        "请假申请",
        (
            _start("发起请假"),
            _approval("0a1x", "直属主管审批"),
            _approval("0b7q", "部门负责人审批"),
            _handling("0c2m", "人事登记假期"),
            _copy("0d9z", "抄送考勤专员"),
        ),
        ("年假3天", "病假1天", "事假半天", "婚假10天", "陪产假15天", "调休2天"),
    ),
    Process(
        "flow_expense_7fd",
        "费用报销",
        (
            _start("填写报销单"),
            _approval("1a4k", "部门经理审批"),
            _approval("1b8w", "财务复核", persons=2),
            _copy("1c3v", "抄送预算管理员"),
            _handling("1d6t", "出纳付款"),
        ),
        ("差旅费3280元", "业务招待费960元", "办公用品412.5元", "市内交通费86元", "会议费12000元"),
    ),
    Process(
        "flow_contract_92c",
        "合同审批",
        (
            _start("提交合同"),
            _approval("2a5n", "业务负责人审批"),
            _approval("2b0h", "法务审核", persons=2),
            _approval("2c1s", "总经理审批"),
            _handling("2d7g", "印章管理员用印"),
            _copy("2e4y", "抄送档案室"),
        ),
        ("年度框架采购合同", "软件服务合同", "房屋租赁合同", "保密协议", "渠道代理协议"),
    ),
    Process(
        "flow_purchase_c04",
        "采购申请",
        (
            _start("发起采购"),
            _approval("3a2f", "需求部门审批"),
            _copy("3b6d", "抄送仓库"),
            _approval("3c9e", "采购经理审批"),
            _handling("3d5r", "供应商下单"),
        ),
        ("笔记本电脑20台", "会议室投影仪2台", "打印纸50箱", "云服务器续费", "实验耗材一批"),
    ),
    Process(
        "flow_onboarding_e51",
        "员工入职",
        (
            _start("录入新员工"),
            _approval("4a7b", "人力资源审批"),
            _approval("4b3c", "用人部门确认"),
            _handling("4c8j", "信息技术开通账号"),
            _copy("4d1u", "抄送行政前台"),
        ),
        ("前端开发工程师", "产品经理", "财务会计", "客户成功顾问", "实习生"),
    ),
    Process(
        "flow_seal_a8b",
        "用章申请",
        (
            _start("发起用章"),
            _approval("5a6p", "部门负责人审批"),
            _approval("5b2l", "法务会签", persons=2),
            _handling("5c0i", "盖章登记"),
            _copy("5d4o", "抄送综合管理部"),
        ),
        ("投标文件（公章）", "在职证明（人事章）", "银行询证函（财务章）", "授权委托书（法人章）"),
    ),
)

PEOPLE: Final = tuple(
    Person(f"19{48210 + 7919 * position:08d}", name)
    for position, name in enumerate(
        (
            *("张伟", "王芳", "李娜", "刘洋", "陈静", "杨帆", "赵敏", "黄磊", "周杰", "吴倩", "徐丽", "孙浩"),
            *(
                "胡晓明",
                "朱婷婷",
                "高志远",
                "林雨桐",
                "何建国",
                "郭思思",
                "马超",
                "罗文博",
                "梁慧",
                "宋佳",
                "郑爽",
                "谢安琪",
            ),
            *("欧阳修远", "司马静怡", "阿依古丽·买买提", "Alice Chen"),
        )
    )
)

APPROVING_COMMENTS: Final = (
    "同意",
    "同意，请尽快办理。",
    "已核对，无异议",
    "OK 👍",
    "情况属实，同意。\n请人事备案。",
    "",
)
REJECTING_COMMENTS: Final = ("材料不全，请补充后重新提交", "预算超支，不同意", '发票抬头有误，应为"腾云科技有限公司"')
SENDING_BACK_COMMENTS: Final = ("金额与附件不一致，退回修改", "请补充合同附件二", "时间与项目排期冲突，请与主管再确认")
PASSING_ON_COMMENTS: Final = ("本人出差，转请代为审批", "此事由你部门负责，转你处理", "请财务一并确认")
WITHDRAWING_COMMENTS: Final = ("填写有误，撤回修改", "行程取消，撤回申请")
ENDING_COMMENTS: Final = ("重复发起，终止", "业务已取消", "制度调整，作废处理")
