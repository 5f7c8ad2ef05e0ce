"""``weda-connector demo``: the main job at a glance."""

import asyncio
import secrets
from typing import Annotated

import msgspec
import typer
import uvloop

from connector.demo import Options, Scene, run, summary
from connector.simulator import Shape

EXIT_NOT_SOUND = 1


def demo(
    *,
    instances: Annotated[
        int | None, typer.Option(min=1, help="Process instances to play in total; without end if not given.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0, help="Messages a second over all instances; 0: as fast as answered.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="End by itself after so many seconds; else on Ctrl-C.")
    ] = None,
    bootstrap_servers: Annotated[
        str | None,
        typer.Option(
            help="Your brokers, as host:port,host:port, instead of one in memory; see WEDA_KAFKA__PROPERTIES."
        ),
    ] = None,
    shape: Annotated[Shape, typer.Option(help="How a message stands in the request.")] = Shape.MIXED,
    seed: Annotated[int | None, typer.Option(help="The same seed plays the same runs; random if not given.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Of the public listener; 8080 if not given, or any free one.")
    ] = None,
) -> None:
    """See it flow: a connector, a simulated WeDa platform, and the events as they appear in Kafka.

    Everything runs in this process and leaves nothing behind; with brokers of your own, the events stay in their
    topics. The last line on stdout is {"sent":…,"accepted":…,"published":…,"lost":…,"out_of_order":…}.

    Exit codes: 0 every accepted message is in Kafka, in order; 1 not so, or nothing was published; 2 bad usage or
    configuration; 3 Kafka is not reachable.

    \b
    Examples:
      weda-connector demo
      weda-connector demo --instances 20 --seconds 15
      weda-connector demo --rate 200 --bootstrap-servers kafka:9092
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
        scene = runner.run(run(options))
    print(summary(scene))
    print(_last_line(scene), flush=True)
    if not scene.ledger.is_sound:
        raise typer.Exit(EXIT_NOT_SOUND)


def _last_line(scene: Scene) -> str:
    return msgspec.json.encode(scene.ledger.counts()).decode()
