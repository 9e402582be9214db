from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bench.load import Result, cpu_s, memory_mb, parse_result
from bench.processes import BenchError

# What wrk 4.1 prints with the script of bench.workload.
_OUTPUT = """\
Running 2s test @ http://127.0.0.1:38231/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.31ms    1.91ms  16.15ms   85.41%
    Req/Sec    23.26k     3.43k   28.63k    65.00%
  46331 requests in 2.00s, 20.33MB read
Requests/sec:  23130.80
Transfer/sec:     10.15MB
measured: {"requests":46331,"duration_us":2003001,"p50_us":1942.0,"p99_us":9593.0,"refused":3,"connect":1,\
"read":2,"write":4,"timeout":8}
"""


def test_wrk_numbers_are_read_in_their_units() -> None:
    assert parse_result(_OUTPUT) == Result(
        requests=46_331, duration_s=2.003001, p50_ms=1.942, p99_ms=9.593, refused=3, socket_errors=15
    )


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1:1 Connection refused\n", _OUTPUT * 2])
def test_output_without_exactly_one_measurement_is_an_error_that_quotes_it(output: str) -> None:
    with pytest.raises(BenchError) as caught:
        parse_result(output)
    assert output in str(caught.value)


# Burns 0.1 s in a thread that ends, 0.1 s in one that lives on, and then does so once more in a child.
_BURN = """
import subprocess, sys, threading, time
burnt = threading.Event()

def burn():
    begun = time.thread_time()
    while time.thread_time() - begun < 0.1:
        pass

def burn_and_stay():
    burn()
    burnt.set()
    sys.stdin.read()

ending = threading.Thread(target=burn)
ending.start()
ending.join()
threading.Thread(target=burn_and_stay).start()
burnt.wait()
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, "child"], stdout=subprocess.PIPE)
    child.stdout.readline()
print("burnt", flush=True)
"""


def test_cpu_and_memory_count_all_threads_ended_ones_too_and_descendants(tmp_path) -> None:
    script = tmp_path / "burn.py"
    script.write_text(_BURN)
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "burnt\n"
        used_s, used_mb = cpu_s(process.pid), memory_mb(process.pid)
        process.communicate("")
    assert used_s >= 0.4
    assert used_mb > 5


def test_own_cpu_time_agrees_with_the_clock_of_the_process() -> None:
    before, clock = cpu_s(os.getpid()), time.process_time()
    while time.process_time() - clock < 0.1:
        pass
    assert 0.09 < cpu_s(os.getpid()) - before < 1.0


def test_a_process_that_is_gone_has_used_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        assert cpu_s(process.pid) == 0
        assert memory_mb(process.pid) == 0
