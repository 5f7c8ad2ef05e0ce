"""The faults that exist in tests only are still where they are meant to be."""

import inspect

import pytest

from tests.faults.host import POINTS, Control, Host


@pytest.mark.parametrize("name", POINTS)
def test_a_point_is_a_method_of_the_connector(name):
    point = POINTS[name]

    assert inspect.isfunction(getattr(point.owner, point.method))
    assert point.owner.__module__.startswith("connector.")


def test_the_process_ends_on_the_given_visit_of_a_point(tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr("os.kill", lambda *_: ended.append(1))
    control = tmp_path / "faults.json"
    Control(point="before produce", pending=3).write(control)
    host = Host(control)

    for name in ("before produce", "request read", "before produce"):
        host.pass_by(name)
    assert ended == []
    host.pass_by("before produce")

    assert ended == [1]
    assert control.with_suffix(".reached").read_text() == "before produce\n"
