"""A real PostgreSQL from the machine's packages, as a plain process that a test can break and mend."""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psycopg

from connector.replicas.migrate import migrate
from tests.servers import apt
from tests.servers.errors import DidNotStart, NotInstalled
from tests.servers.ports import LOOPBACK, free_ports
from tests.servers.processes import Server, ServerProcess
from tests.waiting import wait_until

SCALING = Path(__file__).parents[2] / "docs" / "scaling.md"
HOW_TO_GET = "apt-get install postgresql (Debian, Ubuntu), or any PostgreSQL 13 or newer with its programs on the PATH"
PACKAGED = Path("/usr/lib/postgresql")
OWNER, RUNNER = "weda_owner", "weda_runner"
PASSWORD = "not-a-secret"
SET_UP = re.search(r"^```sql\n(CREATE ROLE.*?)^```$", SCALING.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[1]
"""What docs/scaling.md tells the database's administrator."""

UNPRIVILEGED = "nobody"
"""PostgreSQL refuses to run as root."""


class Postgres(Server):
    """One server on the loopback with a database `weda`; what was committed survives its kills.

    Attributes:
        port: Of the server.
    """

    def __init__(self, state: Path, port: int) -> None:
        self.port = port
        self._state = state
        self._folder = state / "data"
        options = {
            "listen_addresses": LOOPBACK,
            "port": str(port),
            "unix_socket_directories": "",
            "shared_buffers": "64MB",
            "max_connections": "100",
            "deadlock_timeout": "200ms",
            "log_lock_waits": "on",
        }
        settings = [word for name, text in options.items() for word in ("-c", f"{name}={text}")]
        self._process = ServerProcess(
            "postgres",
            [*_unprivileged(), program("postgres"), "-D", str(self._folder), *settings],
            state,
            detached=False,
        )

    @classmethod
    def start(cls) -> Self:
        """Make a new cluster of databases and serve it; ``DidNotStart`` with the log's end otherwise."""
        program("postgres")
        state = Path(tempfile.mkdtemp(prefix="weda-test-postgres-"))
        server = cls(state, free_ports(1)[0])
        try:
            server._initialise()
            server.restart()
            server._furnish()
        except BaseException:
            server.stop()
            raise
        return server

    def pids(self) -> list[int]:
        """The server and its children, each of which has a group of its own."""
        server = self._process._running_pid()
        found = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
        return [pid for pid in found if server and server in (pid, _parent(pid))]

    def url(self, role: str = RUNNER, *, port: int | None = None) -> str:
        """Address of the database for a role, perhaps by way of another port."""
        return f"postgresql://{role}:{PASSWORD}@{LOOPBACK}:{port or self.port}/weda?sslmode=disable"

    def ask(self, sql: str, *, role: str = RUNNER) -> list[tuple[Any, ...]]:
        """Run a statement."""
        with psycopg.connect(self.url(role), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def migrate(self) -> None:
        """Make the tables as their owner."""
        migrate(self.url(OWNER))

    def restart(self) -> None:
        """Start it, after whatever ended it, and wait until it serves."""
        self._process.start()
        self._process.wait_until(self._serves)

    def encrypt(self, certificate: Path, authority: Path, *, asks_for_certificate: bool = False) -> None:
        """From now on the runner gets in over TLS alone, and by a certificate of the authority where that is asked for.

        Args:
            certificate: PEM of key and chain that the server shows; connections that there are stay as they are.
            authority: PEM of the authority of clients' certificates.
            asks_for_certificate: Whether the password is not enough.
        """
        for name, source in (("shown.pem", certificate), ("authority.pem", authority)):
            shutil.copyfile(source, self._folder / name)
            (self._folder / name).chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(self._folder / name, UNPRIVILEGED)
        clients = " clientcert=verify-ca" if asks_for_certificate else ""
        others = f"host all postgres,{OWNER} {LOOPBACK}/32 scram-sha-256"
        rules = f"{others}\nhostssl all {RUNNER} {LOOPBACK}/32 scram-sha-256{clients}\n"
        (self._folder / "pg_hba.conf").write_text(rules, encoding="utf-8")
        files = {"ssl_cert_file": "shown.pem", "ssl_key_file": "shown.pem", "ssl_ca_file": "authority.pem", "ssl": "on"}
        with psycopg.connect(self._admin_url("postgres"), autocommit=True) as connection:
            for name, text in files.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{text}'".encode())
            connection.execute(b"SELECT pg_reload_conf()")

    def pause(self) -> None:
        """SIGSTOP to all of its processes: connections stay open, nobody answers."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to all of its processes: nothing is flushed."""
        pids = self.pids()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.kill()
        # A child that has not ended yet holds the shared memory, and the next start would refuse to serve.
        wait_until(lambda: not any(_is_running(pid) for pid in pids))
        (self._folder / "postmaster.pid").unlink(missing_ok=True)

    def shut_down(self) -> None:
        """End it in good order, with clients' connections cut (a fast shutdown)."""
        self._process._signal(signal.SIGINT)
        self._process._wait_for_end()

    def stop(self) -> None:
        """Kill it and remove its folder."""
        if self._process.running:
            self.kill()
        shutil.rmtree(self._state, ignore_errors=True)

    def _initialise(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self._state, UNPRIVILEGED)
        password = self._state / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        options = [
            "--username=postgres",
            "--auth=scram-sha-256",
            f"--pwfile={password}",
            "--no-sync",
            "--encoding=UTF8",
        ]
        command = [*_unprivileged(), program("initdb"), "-D", str(self._folder), *options, "--no-locale"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self._state)
        if done.returncode:
            raise DidNotStart(f"initdb failed:\n{done.stdout}{done.stderr}")

    def _furnish(self) -> None:
        """Two roles and a database, as docs/scaling.md says: who migrates owns the tables, who runs does not."""
        done = subprocess.run(
            [psql(), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-", self._admin_url("postgres")],
            input=SET_UP.replace("…", PASSWORD),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DidNotStart(f"the roles could not be made:\n{done.stderr}")

    def _serves(self) -> bool:
        try:
            psycopg.connect(self._admin_url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _admin_url(self, database: str) -> str:
        return f"postgresql://postgres:{PASSWORD}@{LOOPBACK}:{self.port}/{database}?sslmode=disable"


def install() -> None:
    """Install PostgreSQL if it is missing and this user may; whether it worked shows when it is looked for."""
    with suppress(NotInstalled):
        program("postgres")
        return
    apt.install("postgresql")


def program(name: str) -> str:
    """Where a program of PostgreSQL is; ``NotInstalled`` where it is not."""
    packaged = sorted(PACKAGED.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3].partition(".")[0]))
    found = str(packaged[-1]) if packaged else shutil.which(name)
    if found is None:
        raise NotInstalled(f"PostgreSQL is missing ({name}): {HOW_TO_GET}")
    return found


def psql() -> str:
    """Where the client is, which comes with the server; ``NotInstalled`` where it is not."""
    found = shutil.which("psql")
    if found is None:
        raise NotInstalled(f"PostgreSQL is missing (psql): {HOW_TO_GET}")
    return found


def _parent(pid: int) -> int | None:
    _, parent = _state_and_parent(pid)
    return parent


def _is_running(pid: int) -> bool:
    state, _ = _state_and_parent(pid)
    return state not in {"", "Z", "X"}


def _state_and_parent(pid: int) -> tuple[str, int | None]:
    """What ``/proc`` says of a process; an empty state if there is none."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return "", None
    return state, int(parent)


def _unprivileged() -> list[str]:
    if os.geteuid() != 0:
        return []
    who = pwd.getpwnam(UNPRIVILEGED)
    return ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups"]
