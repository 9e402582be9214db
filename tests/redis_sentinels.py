"""Redis behind Sentinels: real ones on free ports, and one that says what a test tells it to. Nothing outlives a test."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import redis

from tests.redis_server import RedisServer, find_binary, free_port

NAME = "mymaster"
DOWN_AFTER_MS = 500
BOUND_S = 20.0


class Cluster:
    """A master, its replica and three Sentinels that know each other; ``url`` is what a gateway is given."""

    def __init__(self, path: Path, password: str, sentinel_password: str) -> None:
        again = ("--masterauth", password, "--repl-diskless-load", "disabled")
        self.master = RedisServer(*again, tcp=True, password=password)
        self.replica = RedisServer(
            *again, "--replicaof", "127.0.0.1", str(self.master.port), tcp=True, password=password
        )
        self._sentinel_password = sentinel_password
        self._ports = [free_port() for _ in range(3)]
        self._ids = [secrets.token_hex(20) for _ in range(3)]
        self._files = [path / f"sentinel-{number}.conf" for number in range(3)]
        self._password = password
        self._processes: list[subprocess.Popen[bytes]] = []
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        self.url = f"redis+sentinel://:{password}@{hosts}/{NAME}/0?sentinel_password={sentinel_password}"

    def start(self) -> None:
        """Start all; return when the replica has its copy and the Sentinels agree on all."""
        self.master.start()
        self.replica.start()
        with self.replica.client() as client:
            _until(lambda: client.info("replication")["master_link_status"] == "up")
        for number in range(3):
            self._start_sentinel(number)
        for number in range(3):
            with self.sentinel(number) as client:
                _until(lambda client=client: self._is_settled(client))  # type: ignore[misc]

    def _is_settled(self, client: redis.Redis) -> bool:
        try:
            about = client.execute_command("SENTINEL", "MASTER", NAME)
            known = dict(zip(about[::2], about[1::2], strict=True)) if isinstance(about, list) else about
            replicas = client.execute_command("SENTINEL", "REPLICAS", NAME)
        except redis.ConnectionError:
            return False
        return (
            known["flags"] == "master"
            and int(known["num-other-sentinels"]) == 2
            and len(replicas) == 1
            and "ok" in str(replicas)
        )

    def _start_sentinel(self, number: int) -> None:
        binary = find_binary()
        assert binary is not None
        others = [n for n in range(3) if n != number]
        lines = [
            f"port {self._ports[number]}",
            "bind 127.0.0.1",
            f"dir {self._files[number].parent}",
            'logfile ""',
            f"requirepass {self._sentinel_password}",
            f"sentinel sentinel-pass {self._sentinel_password}",
            f"sentinel myid {self._ids[number]}",
            f"sentinel monitor {NAME} 127.0.0.1 {self.master.port} 2",
            f"sentinel auth-pass {NAME} {self._password}",
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {NAME} 5000",
            f"sentinel known-replica {NAME} 127.0.0.1 {self.replica.port}",
            *(
                f"sentinel known-sentinel {NAME} 127.0.0.1 {self._ports[n]} {self._ids[n]}"
                for n in others
            ),
        ]  # fmt: skip
        self._files[number].write_text("\n".join(lines) + "\n")
        command = [binary, str(self._files[number]), "--sentinel"]
        self._processes.append(
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )

    @contextlib.contextmanager
    def sentinel(self, number: int) -> Iterator[redis.Redis]:
        """Speak with one Sentinel."""
        client = redis.Redis(
            port=self._ports[number],
            password=self._sentinel_password,
            socket_timeout=5,
            decode_responses=True,
        )
        with client:
            yield client

    def kill_sentinel(self, number: int) -> None:
        self._processes[number].kill()
        self._processes[number].wait(BOUND_S)

    def close(self) -> None:
        for number in range(len(self._processes)):
            self.kill_sentinel(number)
        self.replica.close()
        self.master.close()


def _until(done: object) -> None:
    assert callable(done)
    end = time.monotonic() + BOUND_S
    while not done():
        assert time.monotonic() < end, "the Redis servers and their Sentinels did not get ready"
        time.sleep(0.02)  # other processes' facts


@contextlib.contextmanager
def cluster(path: Path, password: str = "redis-hunter2", sentinel_password: str = "s-hunter3") -> Iterator[Cluster]:  # fmt: skip
    """Run a master, a replica and three Sentinels for the length of a block."""
    it = Cluster(path, password, sentinel_password)
    try:
        it.start()
        yield it
    finally:
        it.close()


class ToldSentinel:
    """Answers as a Sentinel does, with what it is told: ``port`` of the master (None: it knows none), ``epoch``."""

    def __init__(self, master_port: int | None, epoch: int = 1) -> None:
        self.master_port = master_port
        self.epoch = epoch
        self.asked = 0
        self.port = 0
        self._subscribers: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def is_watched(self) -> bool:
        return bool(self._subscribers)

    def switch(self, port: int) -> None:
        """Name another master from now on, and say so to who listens."""
        old, self.master_port = self.master_port, port
        self.epoch += 1
        text = b"%b 127.0.0.1 %d 127.0.0.1 %d" % (NAME.encode(), old or 0, port)
        for writer in self._subscribers:
            writer.write(b">3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$%d\r\n%b\r\n" % (len(text), text))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while head := await reader.readline():
                words = []
                for _ in range(int(head[1:])):
                    length = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(length + 2))[:-2].upper())
                writer.write(self._reply(words, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            self._subscribers.discard(writer)
            writer.close()

    def _reply(self, words: list[bytes], writer: asyncio.StreamWriter) -> bytes:
        if words[0] == b"HELLO":
            return b"%1\r\n$5\r\nproto\r\n:3\r\n"
        if words[0] == b"PING":
            return b"+PONG\r\n"
        if words[0] == b"SUBSCRIBE":
            self._subscribers.add(writer)
            return b">3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n"
        if words[:2] == [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME"]:
            self.asked += 1
            if self.master_port is None:
                return b"_\r\n"
            port = b"%d" % self.master_port
            return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%b\r\n" % (len(port), port)
        if words[:2] == [b"SENTINEL", b"MASTER"]:
            epoch = b"%d" % self.epoch
            return b"%%1\r\n$12\r\nconfig-epoch\r\n$%d\r\n%b\r\n" % (len(epoch), epoch)
        return b"+OK\r\n"

    def close(self) -> None:
        for writer in list(self._open):
            writer.close()


@contextlib.asynccontextmanager
async def told(*sentinels: ToldSentinel) -> AsyncIterator[str]:
    """Run such Sentinels; give the URL that names them."""
    servers = [await asyncio.start_server(one.serve, "127.0.0.1", 0) for one in sentinels]
    for one, server in zip(sentinels, servers, strict=True):
        one.port = server.sockets[0].getsockname()[1]
    try:
        yield f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in sentinels)}/{NAME}/0"
    finally:
        for one, server in zip(sentinels, servers, strict=True):
            server.close()
            one.close()
            await server.wait_closed()
