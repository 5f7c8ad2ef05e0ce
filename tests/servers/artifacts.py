"""Jars of the servers and of foreign readers: fetched once with Maven into a cache folder named by their versions."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.servers.errors import NotInstalled
from tests.servers.java import HOW_TO_GET, find_java

SERVERS = Path(__file__).with_name("pom.xml")
"""Apache Kafka and a schema registry."""

READERS = Path(__file__).with_name("readers.xml")
"""What data teams read the topics with."""

CONNECT = Path(__file__).with_name("connect.xml")
"""Kafka Connect itself."""

SPARK = Path(__file__).with_name("spark.xml")
"""Spark itself."""

_RECIPES = Path(__file__).parents[2] / "sinks"
PLUGINS = _RECIPES / "connect" / "plugins.xml"
ICEBERG = _RECIPES / "connect" / "iceberg.xml"
SPARK_SOURCES = _RECIPES / "spark.xml"
"""What docs/sinks.md tells users to fetch, by the files that they use."""

INSTALL = "python -m tests.servers install"


def cache_folder() -> Path:
    """Where everything of the test servers lives: ``WEDA_TEST_CACHE``, else below ``~/.cache``."""
    chosen = os.environ.get("WEDA_TEST_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "weda-connector-tests"


def installed(pom: Path = SERVERS) -> Path:
    """The folder with a subfolder per server or reader; ``NotInstalled`` where they were never fetched."""
    folder = cache_folder() / _versions(pom)
    if not folder.is_dir():
        raise NotInstalled(f"the tests' {pom.stem} jars are not on this machine yet: {INSTALL}")
    return folder


def fetch(pom: Path = SERVERS) -> Path:
    """As ``installed``, and fetches what is missing first; ``NotInstalled`` where Java, Maven or the network are."""
    find_java()
    folder = cache_folder() / _versions(pom)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as part:
        _run_maven(pom, Path(part))
        _move_whole(Path(part), folder)
    return folder


def _run_maven(pom: Path, target: Path) -> None:
    maven = shutil.which("mvn")
    if not maven:
        raise NotInstalled(f"fetching the tests' jars needs Maven (mvn), which is not on the PATH: {HOW_TO_GET}")
    sys.stderr.write(f"fetching {', '.join(products(pom))} for the tests with Maven (once, about a minute)\n")
    environment = dict(os.environ)
    if not shutil.which("java"):
        environment.setdefault("JAVA_HOME", str(find_java().path.parent.parent))
    command = [maven, "-B", "-q", "-f", str(pom), "generate-resources", f"-Dout={target}"]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise NotInstalled(f"Maven could not fetch what the tests need ({pom.name}):\n{done.stdout}")


def _move_whole(part: Path, folder: Path) -> None:
    """Put the folder in place in one step, so that it is complete wherever it exists."""
    complete = part / "complete"
    complete.mkdir()
    for server in [entry for entry in part.iterdir() if entry != complete]:
        server.rename(complete / server.name)
    try:
        complete.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another run was quicker, with the same jars
            raise


def _versions(pom: Path) -> str:
    """``kafka-4.4.0-slf4j-1.7.36-apicurio-3.3.3`` from the pom's ``*.version`` properties."""
    return "-".join(f"{name}-{version}" for name, version in products(pom).items())


def products(pom: Path) -> dict[str, str]:
    """What a pom fetches → its version, from its ``*.version`` properties."""
    maven = "{http://maven.apache.org/POM/4.0.0}"
    properties = ET.parse(pom).getroot().find(f"{maven}properties")
    texts = {} if properties is None else {each.tag.removeprefix(maven): each.text or "" for each in properties}
    return {name.removesuffix(".version"): text for name, text in texts.items() if name.endswith(".version")}
