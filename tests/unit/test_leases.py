"""Leases on the real broker: one holder, for as long as it works, and no longer."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from lhcq.errors import LeaseLost
from lhcq.records.failures import LOG_VARIABLE
from lhcq.workspace import Workspace
from tasks.broker.embedded import embedded_broker
from tasks.jobs import leases
from tasks.jobs.kinds import chunk_unit
from tasks.jobs.leases import holder_of, is_any_leased, is_leased, lease, lease_key
from tasks.jobs.store import create_job
from tasks.jobs.turns import Claim, give_back_lease, take_lease
from tests.specs import job_of

UNIT = "lhcq.cluster_part:made:0"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> float:
    """Leases of half a second, extended each tenth."""
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(leases, "_EXTEND_EVERY_SECONDS", 0.1)
    monkeypatch.setattr(leases, "_extender", leases._Extender())  # whose first interval is not a long one
    return 0.5


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def test_a_lease_excludes_another_and_is_released(broker) -> None:
    with lease(broker, UNIT) as held:
        assert held is not None
        assert not held.lost
        assert is_leased(broker, UNIT)
        with lease(broker, UNIT) as second:
            assert second is None
        assert is_leased(broker, UNIT)  # the one that was refused released nothing
    assert not is_leased(broker, UNIT)
    with lease(broker, UNIT) as again:
        assert again is not None


def test_a_claim_that_is_sent_again_is_the_same_claim(broker, here) -> None:
    job = create_job(here, job_of(name="made", parts=2))
    claim = Claim(job, chunk_unit(job, 0), "cpu")
    for attempts in (1, 2):
        token = f"token {attempts}"
        assert take_lease(broker, lease_key(UNIT), token, 30, claim, "{}")[0] == attempts
        assert take_lease(broker, lease_key(UNIT), token, 30, claim, "{}")[0] == attempts
        assert take_lease(broker, lease_key(UNIT), "another", 30, claim, "{}")[0] == 0
        give_back_lease(broker, lease_key(UNIT), token, claim, "again")
    assert take_lease(broker, lease_key(UNIT), "alone", 30, None, "")[0] == 1
    assert take_lease(broker, lease_key(UNIT), "alone", 30, None, "")[0] == 1


def test_leases_of_different_units_do_not_meet(broker) -> None:
    with lease(broker, UNIT) as one, lease(broker, f"{UNIT}0") as other:
        assert one is not None
        assert other is not None


def test_of_many_that_want_a_lease_at_once_one_gets_it(broker) -> None:
    barrier = threading.Barrier(8)
    got: list[bool] = []

    def want() -> None:
        barrier.wait(10)
        with lease(broker, UNIT) as held:
            got.append(held is not None)
            barrier.wait(10)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(got) == [False] * 7 + [True]


def test_a_lease_is_extended_while_the_work_lasts(broker, short: float) -> None:
    with lease(broker, UNIT) as held:
        time.sleep(4 * short)
        assert not held.lost
        with lease(broker, UNIT) as second:
            assert second is None
    assert not is_leased(broker, UNIT)


def test_a_lease_whose_holder_died_expires(broker, short: float) -> None:
    assert broker.lock(lease_key(UNIT), timeout=short).acquire()  # and nobody extends it
    wait_for(lambda: not broker.exists(lease_key(UNIT)), "the lease to expire")
    with lease(broker, UNIT) as held:
        assert held is not None


def test_a_lease_that_claims_more_than_a_leases_length_has_ended(broker) -> None:
    broker.set(lease_key(UNIT), "of a host that died before the broker's clock was set back", ex=3516)
    with lease(broker, UNIT) as held:
        assert held is not None


@pytest.fixture
def claim(here) -> Claim:
    """Of the first chunk of a job."""
    job = create_job(here, job_of(name="made", parts=2))
    return Claim(job, chunk_unit(job, 0), "cpu")


def begun_by_another(broker: redis.Redis, claim: Claim, ending: str) -> None:
    """Another worker had the unit, and is at it yet, failed, or was killed long ago."""
    key = lease_key(claim.unit.key)
    assert take_lease(broker, key, "another's", 10, claim, "{}")[0] == 2
    if ending == "done":
        give_back_lease(broker, key, "another's", claim, "done")
    elif ending == "killed":
        broker.delete(key)


@pytest.mark.parametrize("ending", ["at it", "done", "killed", "forgotten"])
def test_a_holder_notices_that_its_lease_is_lost(broker, claim: Claim, short: float, ending: str) -> None:
    key = lease_key(claim.unit.key)
    with lease(broker, claim.unit.key, claim=claim) as held:
        with held._asking:  # as if this process stood still
            broker.delete(key)
            if ending == "forgotten":
                broker.flushall()
            else:
                begun_by_another(broker, claim, ending)
        wait_for(lambda: held.lost, "the holder to notice")
    assert broker.exists(key) == (ending == "at it")  # another's lease is not released


def test_a_lease_that_expired_is_taken_again_where_nobody_began_the_unit_since(
    broker, claim: Claim, short: float
) -> None:
    with lease(broker, claim.unit.key, claim=claim) as held:
        broker.delete(lease_key(claim.unit.key))
        wait_for(lambda: is_leased(broker, claim.unit.key), "the holder to have it again")
        held.check()
        with lease(broker, claim.unit.key, claim=claim) as second:
            assert second is None
    assert not is_leased(broker, claim.unit.key)


def test_what_was_given_back_is_not_taken_again(broker, claim: Claim, short: float) -> None:
    for _ in range(20):
        with lease(broker, claim.unit.key, claim=claim) as held:
            held.ending = "again"
            asked = threading.Thread(target=held._extend, args=(held,))
            asked.start()
        asked.join(10)
        assert not is_leased(broker, claim.unit.key)


def test_a_lease_that_claims_more_than_its_length_has_ended(broker) -> None:
    """As all do whose holders die when the broker's clock is set back."""
    assert broker.lock(lease_key(UNIT), timeout=3516).acquire()
    assert not is_leased(broker, UNIT)
    assert not is_any_leased(broker, ["lhcq.cluster_part"], "made")
    with lease(broker, UNIT) as held:
        assert held is not None
        assert is_leased(broker, UNIT)
        assert is_any_leased(broker, ["lhcq.cluster_part"], "made")
        assert not is_any_leased(broker, ["lhcq.cluster_part"], "mad")
        with lease(broker, UNIT) as second:
            assert second is None


def test_a_holder_that_lives_when_the_broker_s_clock_is_set_back_goes_on_unless_another_took_its_lease(
    broker, short: float
) -> None:
    with lease(broker, UNIT) as held:
        broker.pexpire(lease_key(UNIT), 3_516_000)
        wait_for(lambda: is_leased(broker, UNIT), "the holder to extend it")
        assert not held.lost
        broker.pexpire(lease_key(UNIT), 3_516_000)
        with lease(broker, UNIT) as other:
            assert other is None or bool(wait_for(lambda: held.lost, "the holder to notice")) is False


def test_the_lease_goes_with_an_error(broker) -> None:
    with pytest.raises(KeyError), lease(broker, UNIT):
        raise KeyError("work failed")
    assert not is_leased(broker, UNIT)


def threads() -> int:
    return sum(thread.name == "leases" for thread in threading.enumerate())


def test_one_thread_extends_all_leases_of_a_process_and_ends_after_them(broker, short: float) -> None:
    wait_for(lambda: threads() == 0, "the threads of other tests to end")
    with lease(broker, UNIT) as one, lease(broker, f"{UNIT}0") as other:
        assert threads() == 1
        time.sleep(2 * short)
        assert not one.lost
        assert not other.lost
    wait_for(lambda: threads() == 0, "the thread to end")
    with lease(broker, UNIT) as held:
        time.sleep(2 * short)
        assert not held.lost


def test_the_lease_tells_who_holds_it(broker, monkeypatch) -> None:
    monkeypatch.setenv(LOG_VARIABLE, "/var/log/worker.log")
    assert holder_of(broker, UNIT) is None
    with lease(broker, UNIT):
        holder = holder_of(broker, UNIT)
        assert (holder.pid, holder.host, holder.log) == (
            os.getpid(),
            socket.gethostname(),
            "/var/log/worker.log",
        )
        assert abs(holder.since - time.time()) < 60


@pytest.mark.parametrize("taken", [False, True])
def test_a_process_that_stood_still_for_longer_than_its_lease_asks_before_it_goes_on(
    broker, taken: bool
) -> None:
    program = (
        "import sys, time; import redis; from tasks.jobs import leases\n"
        "leases.LEASE_SECONDS = 0.5; leases._EXTEND_EVERY_SECONDS = 60\n"  # the thread comes too late
        "client = redis.Redis(unix_socket_path=sys.argv[1], decode_responses=True)\n"
        f"with leases.lease(client, {UNIT!r}) as held:\n"
        "    print('held', held.lost, flush=True); sys.stdin.readline()\n"
        "    print('after', held.lost, flush=True); sys.stdin.readline()\n"
    )
    server = broker.connection_pool.connection_kwargs["path"]
    with subprocess.Popen(
        [sys.executable, "-c", program, server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "held False\n"
        process.send_signal(signal.SIGSTOP)
        wait_for(lambda: not is_leased(broker, UNIT), "the lease to expire")
        time.sleep(0.2)  # its clock began after the broker's
        if taken:
            broker.set(lease_key(UNIT), "another's", px=10_000)
        process.stdin.write("\n")
        process.stdin.flush()
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == f"after {taken}\n"
        assert broker.exists(lease_key(UNIT))
        process.stdin.close()


def test_a_broker_that_is_away_does_not_stop_the_work_however_long_and_one_that_forgot_does(
    short: float, tmp_path: Path
) -> None:
    place = Workspace(tmp_path)
    with embedded_broker(place) as url:
        client = redis.Redis(unix_socket_path=url.removeprefix("redis+socket://"), decode_responses=True)
        pid = client.info("server")["process_id"]
        job = create_job(place, job_of(name="made", parts=2))
        claim = Claim(job, chunk_unit(job, 0), "cpu")
        with client, lease(client, claim.unit.key, claim=claim) as held:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(4 * short)
            held.check()
            os.kill(pid, signal.SIGCONT)
            wait_for(lambda: is_leased(client, claim.unit.key), "the holder to have its lease again")
            held.check()
            client.flushall()
            wait_for(lambda: held.lost, "the holder to hear that the lease is gone")
            with pytest.raises(LeaseLost):
                held.check()
