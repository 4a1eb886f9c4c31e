"""What the libraries below PyTorch are told, and that a person's own word stays."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from etude.core.runtimes import OWN_SETTINGS, PRODUCTS, SPIN_COUNT, bound_products, set_waiting

CLEAN = {name: value for name, value in os.environ.items() if name not in OWN_SETTINGS}


@pytest.fixture
def without_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.mark.usefixtures("without_torch")
def test_the_spin_count_is_set_where_the_user_said_nothing():
    environment: dict[str, str] = {}
    assert set_waiting(environment)
    assert environment == {"GOMP_SPINCOUNT": str(SPIN_COUNT)}


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize("name", OWN_SETTINGS)
def test_a_persons_own_setting_stays(name):
    environment = {name: "7"}
    assert not set_waiting(environment)
    assert environment == {name: "7"}


def test_it_is_too_late_once_pytorch_is_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", object())
    environment: dict[str, str] = {}
    assert not set_waiting(environment)
    assert environment == {}


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="GNU's runtime is that of PyTorch on Linux")
@pytest.mark.parametrize(("own", "reported"), [({}, SPIN_COUNT), ({"GOMP_SPINCOUNT": "5"}, 5)])
def test_the_runtime_that_pytorch_loads_reports_the_count(own, reported):
    """`etude doctor` imports PyTorch; its runtime prints what it was told when it is loaded."""
    done = subprocess.run(
        [sys.executable, "-m", "etude", "doctor"],
        env={**CLEAN, **own, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"GOMP_SPINCOUNT = '{reported}'" in done.stderr


def test_onednn_is_bounded_where_the_user_said_nothing():
    environment: dict[str, str] = {}
    bound_products(environment)
    assert environment == {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(PRODUCTS)}
    own = {"DNNL_PRIMITIVE_CACHE_CAPACITY": "9"}
    bound_products(own)
    assert own == {"DNNL_PRIMITIVE_CACHE_CAPACITY": "9"}
