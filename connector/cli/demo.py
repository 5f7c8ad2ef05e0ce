"""``demo``: run a connector, a simulated WeDa and a consumer together."""

import asyncio
import secrets
from typing import Annotated

import msgspec
import typer
import uvloop

from connector.cli.exits import failed_if
from connector.cli.options import Seed
from connector.demo import DemoState, Options, run, summary
from connector.simulator import Shape


def demo(
    *,
    instances: Annotated[
        int | None, typer.Option(min=1, help="Process instances to play in total; endless if not given.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0, help="Messages a second over all instances; 0: as fast as possible.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="Stop after this long; else on Ctrl-C.")
    ] = None,
    bootstrap_servers: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESSES",
            help="Your brokers, as host:port,host:port, instead of one in memory; see WEDA_KAFKA__PROPERTIES.",
        ),
    ] = None,
    shape: Annotated[Shape, typer.Option(help="Format of the request body.")] = Shape.MIXED,
    seed: Seed = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the receiver; 8080 if not given, or any free one.")
    ] = None,
) -> None:
    """Run a connector, a simulated WeDa and a consumer together.

    Everything runs in this process and leaves nothing behind; with your own brokers, the events stay in their topics.
    The last line on stdout is {"sent":…,"accepted":…,"published":…,"lost":…,"out_of_order":…}.

    \b
    Examples:
      weda-connector demo
      weda-connector demo --instances 20 --seconds 15
      weda-connector demo --rate 200 --bootstrap-servers kafka:9092

    Exit codes: 0 every accepted message is in Kafka, in order; 1 a message is missing or out of order, or nothing was
    published; 2 bad usage or configuration; 3 Kafka is not reachable.
    """
    options = Options(
        seed=secrets.randbits(31) if seed is None else seed,
        instances=instances,
        rate=rate,
        seconds=seconds,
        bootstrap_servers=bootstrap_servers,
        shape=shape,
        port=port,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        state = runner.run(run(options))
    print(summary(state))
    print(_last_line(state), flush=True)
    raise typer.Exit(failed_if(not state.ledger.is_sound))


def _last_line(state: DemoState) -> str:
    return msgspec.json.encode(state.ledger.counts()).decode()
