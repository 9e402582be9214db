from __future__ import annotations

import os
import select
import signal
import sys
import time

import pytest

from bench.processes import BenchError, Children, accepts, free_ports, run_pinned, wait_until

_CPUS = os.sched_getaffinity(0)

# A leader that is deaf to SIGTERM and has a child; both keep the pipe's writing end open while they live.
_DEAF_FAMILY = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
open(sys.argv[1], "w").write("held")
signal.pause()
"""


def _wait_for_file(child, path) -> None:
    wait_until(child, path.exists, "write its file", 10)


def _fifo_is_closed(reader: int, bound_s: float) -> bool:
    """EOF on a fifo: nobody who held its other end is alive."""
    readable, _, _ = select.select([reader], [], [], bound_s)
    return bool(readable) and os.read(reader, 1) == b""


@pytest.mark.parametrize("failing", [False, True])
def test_leaving_ends_every_process_of_a_group_also_on_errors_and_when_deaf(
    tmp_path, monkeypatch, failing
) -> None:
    monkeypatch.setattr("bench.processes._STOP_S", 0.2)
    fifo, mark = tmp_path / "fifo", tmp_path / "mark"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    code = f"import os\nheld = os.open({str(fifo)!r}, os.O_WRONLY)\n{_DEAF_FAMILY}"
    try:
        with Children(tmp_path) as children:
            child = children.start("family", [sys.executable, "-c", code, str(mark)], _CPUS)
            _wait_for_file(child, mark)
            assert not _fifo_is_closed(reader, 0)
            if failing:
                raise BenchError("something else went wrong")
    except BenchError:
        assert failing
    assert _fifo_is_closed(reader, 10)
    os.close(reader)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_stop_while_a_child_starts_waits_until_it_is_known(
    tmp_path, monkeypatch, number
) -> None:
    import subprocess

    real = subprocess.Popen

    def disturbed(*arguments, **options):
        popen = real(*arguments, **options)
        os.kill(os.getpid(), number)
        return popen

    monkeypatch.setattr("bench.processes.subprocess.Popen", disturbed)
    children = Children(tmp_path)
    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), children:
        children.start("sleeper", [sys.executable, "-c", "import signal; signal.pause()"], _CPUS)
    (child,) = children._children
    assert child.popen.returncode == -signal.SIGTERM
    assert signal.getsignal(number) is handler


def test_a_child_may_run_on_its_cpus_only_and_the_parent_keeps_its_own(tmp_path) -> None:
    one = {min(_CPUS)}
    told = run_pinned([sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], one, 10)
    assert told == f"{one}\n"
    assert os.sched_getaffinity(0) == _CPUS


def test_a_child_that_ended_by_itself_is_an_error_with_its_last_words(tmp_path) -> None:
    with Children(tmp_path) as children:
        child = children.start(
            "short", [sys.executable, "-c", "print('no such file'); raise SystemExit(4)"], _CPUS
        )
        with pytest.raises(BenchError, match=r"short ended by itself \(exit code 4\)\n    no such file"):
            wait_until(child, lambda: False, "listen", 10)


def test_waiting_is_bounded(tmp_path) -> None:
    begun = time.monotonic()
    with Children(tmp_path) as children:
        child = children.start("idle", [sys.executable, "-c", "import signal; signal.pause()"], _CPUS)
        with pytest.raises(BenchError, match=r"idle did not listen within 0\.1 s"):
            wait_until(child, lambda: False, "listen", 0.1)
    assert time.monotonic() - begun < 10


def test_a_tool_that_hangs_is_killed_at_its_bound_and_one_that_fails_is_quoted() -> None:
    with pytest.raises(BenchError, match=r"was not done after 0\.2 s"):
        run_pinned([sys.executable, "-c", "import signal; signal.pause()"], _CPUS, 0.2)
    with pytest.raises(BenchError, match=r"exit code 3(.|\n)*so sad"):
        run_pinned([sys.executable, "-c", "print('so sad'); raise SystemExit(3)"], _CPUS, 10)


def test_free_ports_differ_and_nobody_listens_there() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert not any(accepts(port) for port in ports)
