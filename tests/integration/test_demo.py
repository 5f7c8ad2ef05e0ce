"""The demo ends with numbers that are true, and with an exit code that says whether they are good."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from connector.demo.ledger import MAX_SETTLED, MAX_UNKNOWN, Ledger
from connector.simulator import Answer, Outcome
from tests.servers import KafkaCluster
from tests.servers.ports import free_ports
from tests.waiting import PATIENCE_SECONDS

COMMAND = (sys.executable, "-m", "connector", "demo")
MINE = {"msgType": "Instance", "instanceId": "my-instance", "msgId": "my-1", "actionName": "起草\x1b[31m"}


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The user's own WEDA_ settings would break the demo if it read them."""
    return {**os.environ, "WEDA_JOURNAL__PATH": "/nowhere/journal.db", "TMPDIR": str(folder), **more}


def demo(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "--port", "0", *arguments]
    return subprocess.run(
        command, env=environment(folder, **more), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [*COMMAND, *arguments]
    with subprocess.Popen(command, env=environment(folder), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """The first line that holds the text."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"ended without a line that holds {text!r}")


def numbers(output: str) -> dict[str, int]:
    return json.loads(output.splitlines()[-1])


def assert_sound(counts: dict[str, int]) -> None:
    assert list(counts) == ["sent", "accepted", "published", "lost", "out_of_order"]
    assert counts["sent"] == counts["accepted"] == counts["published"] > 0
    assert counts["lost"] == counts["out_of_order"] == 0


def test_so_many_instances_are_played_and_found_in_time(tmp_path) -> None:
    """It ends by itself, everything that was accepted is in the topic, in order, and nothing is left behind."""
    run = demo(tmp_path, "--instances", "10", "--seconds", "8", "--seed", "1")

    assert run.returncode == 0, run.stderr
    assert_sound(numbers(run.stdout))
    assert "all 10 instances have ended" in run.stdout
    assert "触发流程实例" in run.stdout
    assert "\x1b" not in run.stdout
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_same_demo_runs_on_a_real_broker_again_and_again(kafka: KafkaCluster, tmp_path) -> None:
    """Topics that hold an earlier demo's events, even those of the same seed, are read from where they end."""
    arguments = ("--instances", "10", "--seconds", "8", "--seed", "1", "--bootstrap-servers", kafka.bootstrap_servers)
    properties = {"WEDA_KAFKA__PROPERTIES": '{"client.id": "a-demo"}'}

    first, second = (demo(tmp_path, *arguments, **properties) for _ in range(2))

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert_sound(numbers(first.stdout))
    assert numbers(first.stdout) == numbers(second.stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_endless_demo_with_the_summary(tmp_path, number) -> None:
    with running(tmp_path, "--port", "0", "--rate", "50") as process:
        read_until(process, "instance ")
        process.send_signal(number)
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)

        assert process.returncode == 0
        counts = numbers(output)
        assert counts["published"] > 0
        assert counts["lost"] == counts["out_of_order"] == 0
    assert list(tmp_path.iterdir()) == []


async def test_a_message_of_ones_own_is_shown_and_does_not_count(tmp_path) -> None:
    """What others send cannot steer the terminal."""
    (port,) = free_ports(1)
    with running(tmp_path, "--port", str(port), "--instances", "1", "--seconds", "15") as process:
        read_until(process, "instance ")
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/messageDeliver"
            async with session.post(url, json={"msgContext": MINE}) as response:
                assert await response.json() == {"code": 0}
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)

    assert "another sender's my-insta" in output
    assert "起草 [31m" in output
    assert_sound(numbers(output))


def test_two_demos_at_once_find_ports_of_their_own(tmp_path) -> None:
    with running(tmp_path) as one:
        first = read_until(one, "POST here")
        with running(tmp_path) as two:
            assert read_until(two, "POST here") != first


def test_brokers_that_do_not_answer_are_exit_code_3(tmp_path) -> None:
    run = demo(tmp_path, "--bootstrap-servers", f"127.0.0.1:{free_ports(1)[0]}", "--seconds", "2")

    assert run.returncode == 3
    assert run.stderr.startswith("weda-connector: cannot reach Kafka")
    assert len(run.stderr.splitlines()) == 1


# --- the ledger: a count that cannot be bad proves nothing ---


def answer(
    seq: int, outcome: Outcome = Outcome.ACCEPTED, *, of: int = 3, instance: str = "i", status: Any = 200
) -> Answer:
    return Answer(
        instance_id=instance,
        seq=seq,
        total=of,
        message={"msgId": f"m{seq}"},
        outcome=outcome,
        status=status,
        code=0,
        latency_seconds=0.001,
    )


def ledger_of(*happened: Answer | str) -> Ledger:
    """A ledger after answers and appearances, the latter as message ids of the instance i."""
    ledger = Ledger()
    for one in happened:
        if isinstance(one, str):
            ledger.appeared("i", one)
        else:
            ledger.answered(one)
    return ledger


def test_an_accepted_message_that_does_not_appear_is_lost() -> None:
    ledger = ledger_of(answer(0), answer(1), answer(2), "m0", "m2")

    assert ledger.counts() == {"sent": 3, "accepted": 3, "published": 2, "lost": 1, "out_of_order": 0}
    assert not ledger.is_sound


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("answers_first", [True, False])
def test_messages_after_a_later_one_are_out_of_order(order, answers_first) -> None:
    answers = [answer(seq) for seq in range(3)]
    appearances = [f"m{seq}" for seq in order]
    happened = (*answers, *appearances) if answers_first else (*appearances, *answers)

    late = sum(any(before > seq for before in order[:at]) for at, seq in enumerate(order))
    assert ledger_of(*happened).out_of_order == late


def test_nothing_published_is_not_sound() -> None:
    assert not ledger_of().is_sound
    assert not ledger_of(answer(0, Outcome.REFUSED, status=503)).is_sound


def test_a_repeated_tail_in_order_is_neither_lost_nor_out_of_order() -> None:
    assert ledger_of(answer(0), answer(1), "m0", "m1", "m0", "m1", answer(2), "m2", "m1", "m2").is_sound


def test_a_message_without_an_answer_is_no_loss_and_counts_where_it_appears() -> None:
    ledger = ledger_of(answer(0), "m0", answer(1, Outcome.UNKNOWN, status=None))
    assert (ledger.sent, ledger.published, ledger.lost) == (2, 1, 0)

    ledger.appeared("i", "m1")
    assert (ledger.published, ledger.lost) == (2, 0)
    assert ledger.ended == 1


def test_a_refused_message_is_no_loss() -> None:
    assert ledger_of(answer(0), answer(1, Outcome.REFUSED, status=422), answer(2), "m0", "m2").lost == 0


def test_the_ledger_forgets_what_is_complete_and_what_is_not_ours() -> None:
    """However long the demo, and however busy the topic."""
    ledger = Ledger()
    for number in range(MAX_SETTLED + 10):
        ledger.answered(answer(0, of=1, instance=f"ours-{number}"))
        ledger.appeared(f"ours-{number}", "m0")
    for number in range(MAX_UNKNOWN + 10):
        for message in range(20):
            ledger.appeared(f"theirs-{number}", f"m{message}")

    assert ledger.published == MAX_SETTLED + 10
    assert not ledger._instances
    assert len(ledger._settled) == MAX_SETTLED
    assert len(ledger._unknown) == MAX_UNKNOWN
    assert max(len(each.appeared) for each in ledger._unknown.values()) <= 10
