"""How much the interpreter does for a message, as a multiple of what it does for a bare ASGI application's answer.

Counted are bytecodes and calls into C, not seconds: the counts are the same however busy the machine is, so that the
bound is narrow. What they come to in seconds, ``bench`` measures. Both applications are driven in this process, on a
transport that swallows and a publisher in memory: no kernel, no broker.
"""

import asyncio
import gc
import sys
from zoneinfo import ZoneInfo

import uvicorn
import uvloop
from uvicorn.server import ServerState

from bench import bare
from bench.load import CONNECTIONS
from bench.traffic import SIMULATED, TOKEN, Traffic
from connector.delivery.delivery import Delivery
from connector.delivery.duplicates import Duplicates
from connector.delivery.lanes import LaneCounts
from connector.delivery.order import LocalOrder
from connector.intake.pipeline import Pipeline
from connector.message.decoding import MessageDecoder
from connector.message.encoding import SingleObjectFraming
from connector.message.ingest_ids import IngestIds
from connector.message.routes import Routes
from connector.receiver.application import Receiver
from connector.receiver.authentication import Authentication, Credentials
from connector.receiver.connection import ConnectionBounds
from connector.receiver.limits import RateLimiter
from connector.receiver.replay_protection import ReplayProtection
from connector.telemetry import logs
from connector.telemetry.health import Health
from connector.telemetry.metrics import Metrics
from connector.telemetry.recent import Recent
from connector.testing import InMemoryJournal, InMemoryPublisher

MESSAGES = 5
"""Of each connection in a round."""

MOST_BYTECODES = 5.9
MOST_C_CALLS = 7.2
"""What was reached when this was written, and a twentieth: one lost optimisation is more."""


class Swallowing(asyncio.Transport):
    """Counts what is written to it."""

    def __init__(self):
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""

    def write(self, data):
        self.written += data

    def is_closing(self):
        return False

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


class Forgetful(InMemoryPublisher):
    """Publishes like its parent and keeps nothing: what is measured must not grow."""

    def publish(self, records, report):
        super().publish(records, report)
        self.published.clear()


async def receiver():
    """A receiver with everything behind it, on the stream of events."""
    metrics = Metrics(version="0", sources=["default"], streams=["events"])
    journal = InMemoryJournal()
    delivery = Delivery(
        Forgetful(),
        journal,
        await journal.open(),
        ledger=metrics,
        make_dead_letter=lambda *_: None,
        publish_wait_seconds=60,
    )
    delivery.start_publishing()
    duplicates = Duplicates(window_seconds=3600, max_entries=10_000)
    order = LocalOrder(delivery, duplicates, LaneCounts({}), next_sequence=1)
    decoder = MessageDecoder(ZoneInfo("Asia/Shanghai"))
    pipeline = Pipeline(
        routes=Routes(["events"], "weda.workflow"),
        framing=SingleObjectFraming(),
        order=order,
        duplicates=duplicates,
        ingest_ids=IngestIds(),
        metrics=metrics,
        decoder=decoder,
        max_in_flight=1024,
        reply_deadline_seconds=60,
        topic_limits={"weda.workflow.events": 1_000_000},
        write_note=journal.write_note,
    )
    application = Receiver(
        Authentication({"default": Credentials(tokens=(TOKEN,))}, allow_anonymous=False),
        pipeline,
        metrics,
        Recent(["default"], decoder.decode),
        max_body_bytes=512 * 1024,
        max_in_flight=1024,
        rate_limiter=RateLimiter({}),
        replay_protection=ReplayProtection(order, reply_deadline_seconds=60),
        health=Health(1 << 30, is_open=True),
        trusted_proxies=(),
    )
    return application, delivery


class Served:
    """An application behind connections that lead nowhere."""

    def __init__(self, application, http):
        config = uvicorn.Config(
            application,
            http=http,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            timeout_keep_alive=3_600,  # on a slow machine the connections would be closed while it counts
        )
        config.load()
        state = ServerState()
        traffic = Traffic(SIMULATED, "127.0.0.1:1")
        self._requests = [traffic.requests() for _ in range(CONNECTIONS)]
        self._connections = []
        for _ in range(CONNECTIONS):
            protocol, transport = config.http_protocol_class(config, state, {}), Swallowing()
            protocol.connection_made(transport)
            self._connections.append((protocol, transport))

    async def round(self):
        """Bytecodes and calls into C of one message."""
        requests = [[next(each) for each in self._requests] for _ in range(MESSAGES)]
        with Counting() as counting:
            for batch in requests:
                for (protocol, transport), request in zip(self._connections, batch, strict=True):
                    transport.written = b""
                    protocol.data_received(request)
                while not all(transport.written for _, transport in self._connections):
                    await asyncio.sleep(0)
        assert {transport.written[:12] for _, transport in self._connections} == {b"HTTP/1.1 200"}
        return counting.bytecodes / MESSAGES / CONNECTIONS, counting.c_calls / MESSAGES / CONNECTIONS


class Counting:
    """Counts what this thread executes in functions that begin meanwhile."""

    def __init__(self):
        self.bytecodes = self.c_calls = 0

    def __enter__(self):
        self._before = sys.gettrace(), sys.getprofile()
        gc.disable()  # other tests may have left callbacks of it
        sys.setprofile(self._note_call)
        sys.settrace(self._begin_function)
        return self

    def __exit__(self, *_):
        trace, profile = self._before
        sys.settrace(trace)
        sys.setprofile(profile)
        gc.enable()

    def _begin_function(self, frame, _event, _argument):
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._note_bytecode

    def _note_bytecode(self, _frame, event, _argument):
        self.bytecodes += event == "opcode"
        return self._note_bytecode

    def _note_call(self, _frame, event, _argument):
        self.c_calls += event == "c_call"


async def measured():
    logs.configure("info", "json")
    application, delivery = await receiver()
    floor, ours = (
        Served(bare.app, "httptools"),
        Served(application, ConnectionBounds.public(application, 1024, print).protocol),
    )
    await floor.round()  # what is made once is made
    await ours.round()
    counts = await floor.round(), await ours.round()
    await delivery.stop(1)
    return counts


def test_a_message_costs_no_more_than_some_times_a_bare_answer(record_property):
    """The guard of the hot path."""
    floor, ours = uvloop.run(measured())
    bytecodes, c_calls = (mine / bare_s for mine, bare_s in zip(ours, floor, strict=True))
    record_property("bytecodes", bytecodes)
    record_property("c_calls", c_calls)

    assert bytecodes < MOST_BYTECODES, (ours, floor)
    assert c_calls < MOST_C_CALLS, (ours, floor)
