"""Judges on a real Ray cluster of several nodes on this machine, one of which is killed."""

import os
import signal
import time

import pytest

from etude.core.errors import JudgeError
from etude.practice.problem import find_problem
from etude.practice.progress import UserProgress
from etude.practice.queue import Queue
from etude.practice.session import recorder
from etude.practice.worker import Workers
from etude.store.engine import open_store

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray", reason="pip install 'etude[ray]'")

# Longer runs, so that the killed node surely holds some.
NODE = {"object_store_memory": 80 << 20}

SLOW = "import time\ntime.sleep(0.2)\n"


@pytest.fixture
def cluster():
    """A head that judges nothing and two nodes that judge, each a family of processes."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **NODE}
    )
    nodes = [cluster.add_node(num_cpus=1, **NODE) for _ in range(2)]
    terminate = signal.getsignal(signal.SIGTERM)  # Ray takes it, and does not give it back
    ray.init(address=cluster.address, log_to_driver=False, namespace="etude")
    yield cluster, nodes
    ray.shutdown()
    cluster.shutdown()
    signal.signal(signal.SIGTERM, terminate)


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_submissions_survive_a_machine_that_dies_and_are_judged_once(
    cluster, tmp_path, tensor_dataset, judge
):
    from etude.practice.cluster import RayJudges

    machines, (first, _) = cluster
    engine = open_store(f"sqlite:///{tmp_path / 'etude.sqlite3'}")
    queue = Queue(engine)
    sources = [
        SLOW + (tensor_dataset.solution if index % 3 else tensor_dataset.wrong[0][1])
        for index in range(24)
    ]
    keys = [queue.add("ada", tensor_dataset.slug, source) for source in sources]
    record, judged = recorder(engine), []

    def note(ticket, verdict):
        judged.append(ticket.key)
        record(ticket, verdict)

    def running():
        return [key for key in keys if queue.status(key).state == "running"]

    def done():
        return sum(queue.status(key).state == "done" for key in keys)

    with (
        RayJudges(machines.address, actors=2, slots=1) as judges,
        Workers(engine, judges, find_problem, note) as workers,
    ):
        assert judges.slots == 2 and "limits" in judges.describe()
        workers.wake()
        wait_until(lambda: done() >= 4)
        # Both hold a run when one is killed, with SIGKILL for every process of it.
        wait_until(lambda: len(running()) == 2)
        held = running()
        machines.remove_node(first, allow_graceful=False)
        at = done()
        wait_until(lambda: queue.waiting() == 0)
        assert at < len(keys)
        # A machine that comes later takes the lost judge's place.
        machines.add_node(num_cpus=1, **NODE)
        wait_until(lambda: not judges._away)
    assert sorted(judged) == sorted(keys)
    # What the dead machine held is judged when its death is noticed; all else keeps its order,
    # but for two that run at once, either of which may end first.
    others = [key for key in keys if key not in held]
    after = [key for key in judged if key not in held]
    assert max(abs(others.index(key) - place) for place, key in enumerate(after)) <= 1
    for key, source in zip(keys, sources, strict=True):
        verdict = queue.status(key).verdict
        here = judge.judge(tensor_dataset, source, verdict.seed)
        assert (verdict.kind, verdict.detail, verdict.failing) == (
            here.kind,
            here.detail,
            here.failing,
        )
    assert UserProgress(engine, "ada").stats().submissions == len(keys)


def test_submissions_keep_their_place_while_no_machine_is_left(
    cluster, tmp_path, tensor_dataset, monkeypatch
):
    from etude.practice import cluster as judging

    monkeypatch.setattr(judging, "AWAY_SECONDS", 2.0)
    machines, nodes = cluster
    engine = open_store(f"sqlite:///{tmp_path / 'etude.sqlite3'}")
    queue = Queue(engine)
    with (
        judging.RayJudges(machines.address, actors=1, slots=1) as judges,
        Workers(engine, judges, find_problem) as workers,
    ):
        for node in nodes:
            machines.remove_node(node, allow_graceful=False)
        keys = [queue.add("ada", tensor_dataset.slug, tensor_dataset.solution) for _ in range(3)]
        workers.wake()
        time.sleep(8)  # more than three tries would take
        assert [queue.status(key).verdict for key in keys] == [None] * 3
        machines.add_node(num_cpus=1, **NODE)
        wait_until(lambda: queue.waiting() == 0)
    assert all(queue.status(key).verdict.accepted for key in keys)


def test_a_layer_that_no_machine_has_is_an_error_in_one_line(cluster):
    from etude.practice.cluster import RayJudges

    with pytest.raises(JudgeError, match="unknown layer 'moat'") as error:
        RayJudges(cluster[0].address, slots=1, require=("moat",))
    assert "\n" not in str(error.value)


def test_a_cluster_that_is_not_there_is_an_error_in_one_line():
    from etude.practice.cluster import RayJudges

    with pytest.raises(JudgeError, match=r"no Ray cluster at '127\.0\.0\.1:1'") as error:
        RayJudges("127.0.0.1:1")
    assert "\n" not in str(error.value)
