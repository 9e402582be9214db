"""The small parts of a node: sums, cores, systemd's variables, waits, the channel, and whose help a slot gets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from authgate_fast.observe.exposition import Family, Sample, counter, gauge, labelled, summary
from authgate_fast.server.channel import Channel, Message
from authgate_fast.server.children import READY, Child
from authgate_fast.server.cpus import usable_cpus
from authgate_fast.server.listening import Address, ListenError, open_slots, take_passed
from authgate_fast.server.sd_notify import Notifier
from authgate_fast.server.slots import HELP_AFTER_S, MAX_WAIT_S, Slot, cover
from authgate_fast.server.sums import Sums, sum_status, to_plain, totals_of


def test_counts_are_added_up_and_those_of_ended_workers_stay() -> None:
    sums = Sums()
    one = to_plain(
        [counter("a_total", "A.", 3), gauge("g_open", "G.", 2), summary("s_seconds", "S.", 0.5, 4)]
    )
    sums.add(one, only_growing=True)
    sums.add(to_plain([counter("a_total", "A.", 4), gauge("g_open", "G.", 5)]))
    assert sums.families() == [
        counter("a_total", "A.", 7),
        summary("s_seconds", "S.", 0.5, 4),
        gauge("g_open", "G.", 5),
    ]


def test_samples_are_added_label_by_label_and_versions_are_not_added() -> None:
    sums = Sums()
    info = Family("x_info", "gauge", "X.", (Sample(1, (("v", "1"),)),))
    for codes in ({"a": 1, "b": 2}, {"b": 3}):
        sums.add(
            to_plain(
                [labelled("r_total", "counter", "R.", "code", codes), gauge("c_revision", "C.", 7), info]
            )
        )
    assert sums.families() == [
        labelled("r_total", "counter", "R.", "code", {"a": 1, "b": 5}),
        gauge("c_revision", "C.", 7),
        info,
    ]


def test_a_status_is_the_first_worker_s_with_sums_in_it() -> None:
    one = {
        "version": "1",
        "tasks": 3,
        "connections": 2,
        "requests_total": 5,
        "refused_total": {"x": 1},
        "upstreams": {"u": {"open": 1}},
    }
    two = {
        "version": "2",
        "tasks": 4,
        "connections": 3,
        "requests_total": 7,
        "refused_total": {"y": 2},
        "upstreams": {"u": {"open": 4}},
    }
    ended = totals_of({"version": "0", "connections": 9, "requests_total": 100, "refused_total": {"x": 10}})
    assert sum_status([one, two], ended) == {
        "version": "1",
        "tasks": 7,
        "connections": 5,
        "requests_total": 112,
        "refused_total": {"x": 11, "y": 2},
        "upstreams": {"u": {"open": 5}},
    }
    assert sum_status([], ended) == {"requests_total": 100, "refused_total": {"x": 10}}


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/of/the/host\n", {"cpu.max": "400000 100000\n"}, 4),
        (
            "4:cpu,cpuacct:/a\n0::/\n",
            {"cpu/a/cpu.cfs_quota_us": "250000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 8),
        ("4:memory:/a\n", {"cpu/a/cpu.cfs_quota_us": "100000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 8),
        ("0::/\n", {"cpu.max": "rubbish"}, 8),
    ],
)
def test_as_many_cores_as_affinity_and_control_groups_allow(
    membership: str, files: dict[str, str], cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "membership").write_text(membership)
    assert usable_cpus(tmp_path, tmp_path / "membership") == cpus


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_over_a_datagram_socket_and_workers_do_not_inherit_it(
    abstract: bool, tmp_path: Path
) -> None:
    name = f"@authgate-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    environment = {
        "NOTIFY_SOCKET": name,
        "WATCHDOG_USEC": "4000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(5)
        notifier = Notifier(environment)
        assert environment == {"HOME": "/"}
        assert notifier.watchdog_s == 2
        notifier.ready("2 of 2")
        assert manager.recv(1_000) == b"READY=1\nSTATUS=2 of 2"
        notifier.status("2 of 2")
        notifier.reloading()
        lines = manager.recv(1_000).split(b"\n")
        assert lines[0] == b"RELOADING=1"
        assert lines[1].startswith(b"MONOTONIC_USEC=")
        assert lines[1][15:].isdigit()
        notifier.stopping()
        assert manager.recv(1_000).startswith(b"STOPPING=1")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "/no/such/socket"},
        {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"},
    ],
)
def test_without_systemd_nothing_happens(environment: dict[str, str]) -> None:
    notifier = Notifier(environment)
    notifier.ready("x")
    assert notifier.watchdog_s is None


def test_one_socket_for_each_slot_and_address_on_one_port() -> None:
    slots = open_slots(Address("localhost", 0), 3)
    try:
        assert len(slots) == 3
        families = {one.family for one in slots[0]}
        assert socket.AF_INET in families
        assert all([one.family for one in slot] == [one.family for one in slots[0]] for slot in slots)
        assert len({one.getsockname()[1] for slot in slots for one in slot}) == 1
        assert not any(
            one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for slot in slots for one in slot
        )
    finally:
        for slot in slots:
            for one in slot:
                one.close()


def test_a_port_that_another_gateway_shares_is_in_use_all_the_same() -> None:
    (first,) = open_slots(Address("127.0.0.1", 0), 1)
    try:
        first[0].listen()
        address = Address("127.0.0.1", first[0].getsockname()[1])
        with pytest.raises(ListenError, match="another program listens there"):
            open_slots(address, 2)
    finally:
        first[0].close()


def test_a_name_without_an_address_is_said() -> None:
    with pytest.raises(ListenError, match="no address"):
        open_slots(Address("no-such-host.invalid", 80), 1)


@pytest.fixture
def passed_pair() -> Iterator[tuple[int, list[socket.socket]]]:
    """Two listening sockets at descriptors that follow each other."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    base = 200
    for number, one in enumerate(sockets):
        os.dup2(one.fileno(), base + number)
    yield base, sockets
    for one in sockets:
        one.close()


def test_sockets_that_systemd_passes_are_taken_by_their_names(
    passed_pair: tuple[int, list[socket.socket]],
) -> None:
    base, sockets = passed_pair
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:ops", "A": "b"}
    passed = take_passed(environment, base)
    assert environment == {"A": "b"}
    assert passed is not None
    assert [one.getsockname() for one in passed.traffic] == [sockets[0].getsockname()]
    assert [one.getsockname() for one in passed.ops] == [sockets[1].getsockname()]
    for one in passed.traffic + passed.ops:
        one.close()


@pytest.mark.parametrize("environment", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_FDS": "x"}])
def test_sockets_for_another_process_are_not_ours(environment: dict[str, str]) -> None:
    assert take_passed(environment) is None


def test_a_passed_socket_that_does_not_listen_is_refused() -> None:
    with socket.socket() as one:
        environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
        with pytest.raises(ListenError, match="no stream socket that listens"):
            take_passed(environment, os.dup(one.fileno()))


class FakeChild:
    """What a slot asks of a child."""

    def __init__(self) -> None:
        self.accepts = True
        self.state = READY
        self.fit = True
        self.ready_s: float | None = None
        self.sent: list[tuple[str, int]] = []

    def serves(self) -> bool:
        return self.fit

    def send(self, kind: str, fds: list[int] | None = None, *, slot: int) -> None:
        self.sent.append((kind, slot))


def test_a_slot_without_a_worker_is_helped_by_the_least_busy_neighbour_until_it_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 1_000.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    slots = [Slot(number, [socket.socket()]) for number in range(4)]
    children = [FakeChild() for _ in range(4)]
    for slot, child in zip(slots, children, strict=True):
        slot.current = cast(Child, child)
    cover(slots)
    assert [child.sent for child in children] == [[], [], [], []]
    slots[0].current = None
    children[1].fit = False
    cover(slots)
    assert [child.sent for child in children] == [[], [], [], []], "its next worker may be there in a moment"
    now_s += 2 * HELP_AFTER_S
    cover(slots)
    assert [child.sent for child in children[2:]] == [[("accept", 0)], [("accept", 1)]]
    cover(slots)
    assert sum(len(child.sent) for child in children) == 2
    children[1].fit = True
    cover(slots)
    assert children[3].sent[-1] == ("leave", 1)
    children[2].fit = False  # the helper fails itself
    cover(slots, at_once=True)
    assert children[2].sent[-1] == ("leave", 0)
    assert sorted(children[1].sent + children[3].sent[2:]) == [("accept", 0), ("accept", 2)]
    for slot in slots:
        slot.close()


def test_early_ends_wait_longer_each_time_and_a_worker_that_lived_resets_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slot = Slot(0, [])
    child = FakeChild()
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    waits = [slot.wait_s(cast(Child, child)) for _ in range(12)]
    assert waits[:4] == [0.25, 0.5, 1.0, 2.0]
    assert waits[-1] == MAX_WAIT_S
    child.ready_s = 0.0  # the machine's start: long ago
    assert slot.wait_s(cast(Child, child)) == 0.0
    child.ready_s = None
    assert slot.wait_s(cast(Child, child)) == 0.25


class End:
    """One end of a channel, and what came out of it."""

    def __init__(self, sock: socket.socket) -> None:
        self.messages: list[Message] = []
        self.fds: list[int] = []
        self.is_ended = False
        self.channel = Channel(asyncio.get_running_loop(), sock, self._message, self._end)

    def _message(self, message: Message, fds: list[int]) -> None:
        self.messages.append(message)
        self.fds += fds

    def _end(self) -> None:
        self.is_ended = True


async def until(done: Any) -> None:
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110  # a fact that others make true
            await asyncio.sleep(0)


async def test_messages_of_any_size_arrive_whole_in_order_and_with_their_descriptors() -> None:
    one, two = map(End, socket.socketpair())
    large = "x" * 3_000_000
    with socket.create_server(("127.0.0.1", 0)) as server:
        one.channel.send({"n": 1})
        one.channel.send({"n": 2, "text": large})
        one.channel.send({"n": 3}, [server.fileno()])
        one.channel.send({"n": 4}, [server.fileno(), server.fileno()])
        assert one.channel.unsent
        await until(lambda: len(two.messages) == 4)
        assert [message["n"] for message in two.messages] == [1, 2, 3, 4]
        assert two.messages[1]["text"] == large
        assert len(two.fds) == 3
        for fd in two.fds:
            with socket.socket(fileno=fd) as copy:
                assert copy.getsockname() == server.getsockname()
                assert not copy.get_inheritable()
    one.channel.close()
    await until(lambda: two.is_ended)
    two.channel.send({"to": "nobody"})
    two.channel.close()


@pytest.mark.parametrize("rubbish", [b"no json\n", b"[1]\n", b'{"fds": "many"}\n', b"\xff\xff\n"])
async def test_rubbish_ends_a_channel_and_nothing_else(rubbish: bytes) -> None:
    ours, theirs = socket.socketpair()
    end = End(ours)
    with theirs:
        theirs.sendall(rubbish)
        await until(lambda: end.is_ended)
    assert end.messages == []


async def test_last_words_are_read_from_an_end_that_is_gone() -> None:
    ours, theirs = socket.socketpair()
    end = End(ours)
    with theirs:
        theirs.sendall(b'{"kind":"failed"}\n{"kind":"cut off')
    end.channel.read_rest()
    assert end.messages == [{"kind": "failed"}]
    end.channel.close()
