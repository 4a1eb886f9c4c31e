"""Zygote: a process that has imported and warmed up everything, and forks once per run.

It has one thread, no event loop, no tests and no secrets, since a copy of it runs the submission.
It is started by exec, communicates with the judge over one socket (`SOCK_SEQPACKET`), and exits
when the judge does.

Messages are JSON, with file descriptors as ancillary data:
    to it      {"op": "prepare", "slot", "run", "memory"} + request, result, output descriptors
    from it    {"op": "ready", "layers", "landlock", "warm_seconds"}
               {"op": "prepared", "slot", "run"} + a descriptor of the process (pidfd)
               {"op": "ended", "slot", "run", "status", "cpu", "peak"}
"""

# What torch, NumPy and others leave untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

# Before torch is imported: a fork after a second thread has started deadlocks.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ[_name] = "1"

from etude.practice.judge import cgroups, sandbox, syscalls  # noqa: E402

OWN_MEMORY = 512 << 20
"""Memory allowed for a run's copy of the interpreter and torch, on top of the problem's limit."""


def main(control: int) -> None:
    """Serve until the judge exits."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    begun = time.perf_counter()
    place = Path(os.environ["HOME"]).parents[1]
    without = os.environ.get("ETUDE_JUDGE_WITHOUT", "")
    namespaces = "namespaces" not in without and sandbox.enter_namespaces(place)
    if namespaces:
        # When the first process of a PID namespace ends, the kernel kills all others.
        inner = os.fork()
        if inner:
            _, status = os.waitpid(inner, 0)
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    _warm()
    box = sandbox.Sandbox.prepare(place, namespaces)
    _Zygote(socket.socket(fileno=control), box).serve(time.perf_counter() - begun)


_STANDARD = (
    "abc",
    "argparse",
    "array",
    "bisect",
    "collections.abc",
    "contextlib",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "encodings.idna",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "importlib",
    "inspect",
    "io",
    "itertools",
    "json",
    "logging",
    "math",
    "operator",
    "pathlib",
    "pickle",
    "pprint",
    "queue",
    "random",
    "re",
    "statistics",
    "string",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "tracemalloc",
    "types",
    "typing",
    "unittest.mock",
    "warnings",
    "weakref",
)


def _warm() -> None:
    """Exercise what submissions use, so that a run imports and initialises nothing."""
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F
    from torch.utils.data import DataLoader, TensorDataset

    for name in _STANDARD:
        importlib.import_module(name)
    torch.set_num_threads(1)
    with suppress(RuntimeError):
        torch.set_num_interop_threads(1)
    x, y = torch.randn(8, 4), torch.randint(0, 3, (8,))
    net = nn.Sequential(
        nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(0.1), nn.Linear(8, 3)
    )
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        optimizer = kind(net.parameters(), lr=0.1)
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        F.cross_entropy(net(x), y).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    for _ in DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True):
        pass
    F.scaled_dot_product_attention(
        torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 8)
    )
    F.conv2d(torch.randn(1, 1, 8, 8), torch.randn(1, 1, 3, 3))
    F.interpolate(torch.randn(1, 1, 4, 4), scale_factor=2, mode="bilinear")
    torch.linalg.svd(torch.randn(4, 4))
    torch.linalg.solve(torch.eye(3), torch.ones(3))
    torch.einsum("ij,jk->ik", torch.ones(2, 2), torch.ones(2, 2))
    torch.func.vmap(torch.sum)(x)
    repr(x)
    np.linalg.svd(np.eye(3))
    np.random.default_rng(0).normal(size=3)
    import etude.practice.judge.runner as _child

    _child.encode((x, [1.0, "a"], {"b": np.ones(2)}))
    gc.collect()


class _Zygote:
    """The loop that forks and reaps."""

    def __init__(self, control: socket.socket, box: sandbox.Sandbox) -> None:
        self.control = control
        self.box = box
        self.running: dict[int, tuple[int, int]] = {}
        self.groups: dict[int, cgroups.Group | None] = {}
        self.own_processes = os.open("/proc/self/ns/pid", os.O_RDONLY) if box.namespaces else -1

    def serve(self, warm_seconds: float) -> None:
        """Answer messages and reap runs until the judge closes its end."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        sandbox.remember_mapped()
        gc.disable()
        gc.freeze()
        syscalls.collapse_memory()
        level = self.box.level(self._group(0) is not None)
        self._send(
            {
                "op": "ready",
                "layers": level.layers,
                "landlock": level.landlock,
                "warm_seconds": warm_seconds,
                "python": sys.version.split()[0],
            }
        )
        import select

        poller = select.poll()
        poller.register(self.control, select.POLLIN)
        poller.register(wake_read, select.POLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor == wake_read:
                    with suppress(BlockingIOError):
                        os.read(wake_read, 4096)
                    self._reap()
                else:
                    message, descriptors, _, _ = socket.recv_fds(self.control, 65536, 3)
                    if not message:
                        self._leave()
                        return
                    self._prepare(json.loads(message), descriptors)

    def _group(self, slot: int) -> cgroups.Group | None:
        if slot not in self.groups:
            without = "cgroup" in os.environ.get("ETUDE_JUDGE_WITHOUT", "")
            name = f"etude-judge-{os.environ.get('ETUDE_JUDGE', os.getpid())}-{slot}"
            self.groups[slot] = None if without else cgroups.make(name)
        return self.groups[slot]

    def _prepare(self, message: dict[str, Any], descriptors: list[int]) -> None:
        group = self._group(message["slot"])
        if group is not None:
            group.limit(OWN_MEMORY + message["memory"], 64)
        if self.box.namespaces:
            # Return to our own first: the kernel creates one only below the current one.
            syscalls.setns(self.own_processes, syscalls.CLONE_NEWPID)
            syscalls.unshare(syscalls.CLONE_NEWPID)
        process = os.fork()
        if process == 0:
            _become_run(self.box, message["slot"], group, descriptors)
        handle = os.pidfd_open(process)
        for descriptor in descriptors:
            os.close(descriptor)
        self.running[process] = message["slot"], message["run"]
        self._send({"op": "prepared", "slot": message["slot"], "run": message["run"]}, [handle])
        os.close(handle)

    def _reap(self) -> None:
        while True:
            try:
                process, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            if process in self.running:
                slot, run = self.running.pop(process)
                self._send(
                    {
                        "op": "ended",
                        "slot": slot,
                        "run": run,
                        "status": status,
                        "cpu": usage.ru_utime + usage.ru_stime,
                        "peak": usage.ru_maxrss * 1024,
                    }
                )

    def _send(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        content = json.dumps(message).encode()
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self.control, [content], descriptors or [])

    def _leave(self) -> None:
        for process in self.running:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for process in self.running:
            with suppress(ChildProcessError):
                os.waitpid(process, 0)
        for group in self.groups.values():
            if group is not None:
                group.remove()


def _become_run(
    box: sandbox.Sandbox, slot: int, group: cgroups.Group | None, descriptors: list[int]
) -> None:
    """Make this fork into the sandbox of one run; never returns."""
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        from etude.practice.judge import runner

        request, result, output = descriptors
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        ruleset = {box.ruleset} if box.ruleset is not None else set[int]()
        runner.close_others({request, result} | ruleset)
        box.enter(slot, group)
        if box.ruleset is not None:
            os.close(box.ruleset)
        runner.forget_builtins()
        runner.serve(request, result)
        code = 0
    except BaseException as error:
        with suppress(OSError):
            os.write(2, f"sandbox: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)
