"""What holds for the simulator's runs whatever the seed."""

from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from connector.simulator import runs

LAST_ACTIONS = {5, 8, 16, 18, 23}


@settings(max_examples=25)  # each example is twenty runs
@given(seed=st.integers(), start_ms=st.integers(0, 4_000_000_000_000))
def test_a_run_begins_with_a_start_or_a_draft_and_ends_with_an_ended_instance(seed, start_ms):
    for run in islice(runs(seed, None, start_ms), 20):
        actions = [int(message["action"]) for message in run.messages]
        assert actions[0] in {17, 22}
        assert actions[-1] in LAST_ACTIONS
        assert run.messages[-1]["msgType"] == "Instance"
        assert int(run.messages[-1]["instanceStatus"]) in range(1, 6)


@settings(max_examples=25)  # each example is twenty runs
@given(seed=st.integers())
def test_every_message_names_its_instance_and_its_type(seed):
    for run in islice(runs(seed, None, 0), 20):
        assert {message["instanceId"] for message in run.messages} == {run.instance_id}
        assert {message["msgType"] for message in run.messages} <= {"Instance", "Task"}
        assert all(message["msgId"] for message in run.messages)


@settings(max_examples=25)  # each example is twenty runs
@given(seed=st.integers(), start_ms=st.integers(0, 4_000_000_000_000))
def test_any_twenty_runs_hold_every_listed_action(seed, start_ms):
    played = [message for run in islice(runs(seed, None, start_ms), 20) for message in run.messages]
    assert {int(message["action"]) for message in played} >= {*range(10), 13, *range(15, 24)}
