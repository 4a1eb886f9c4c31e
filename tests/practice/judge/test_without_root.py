"""The judge where nobody is root: user namespaces give what root's rights give elsewhere."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NOBODY = 65534
# Some of the hostile programs, by what they try: to get out, to look, to stay, to fake.
ATTACKS = (
    "fork_bomb",
    "tcp",
    "pivot_root",
    "new_user_namespace",
    "read_host_files",
    "daemon_outlives_the_run",
    "kill_everyone",
    "forged_result",
    "disk_fill",
)

PROGRAM = """
import json, os, sys
from etude.practice.judge.judge import Judge
from etude.practice.judge.pool import Pool
from etude.practice.problem import find_problem

assert os.getuid() == {nobody}
problem = find_problem("create-tensordataset")
with Pool(python={python!r}) as pool:
    judge = Judge(pool)
    told = {{
        name: judge.judge(problem, source, 7).name
        for name, source in json.load(sys.stdin).items()
    }}
    told["again"] = judge.judge(problem, problem.solution).name
    print(json.dumps({{"layers": pool.level.layers, "told": told}}))
"""


def readable_by_all(path: Path) -> bool:
    path = path.resolve()
    return all(folder.stat().st_mode & 0o5 == 0o5 for folder in (path, *path.parents))


@pytest.fixture
def python(tmp_path_factory):
    """An interpreter that anybody may run, with the packages of this one."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin")):
        if candidate and readable_by_all(Path(candidate)):
            break
    else:
        pytest.skip(f"no {version} here that an ordinary user may run")
    packages = Path(sysconfig.get_path("purelib"))
    if not readable_by_all(packages) or not readable_by_all(ROOT / "src"):
        pytest.skip("an ordinary user may not read this checkout or its packages")
    folder = Path("/tmp") / f"etude-nobody-{os.getpid()}"
    subprocess.run([candidate, "-m", "venv", "--without-pip", folder], check=True)
    folder.chmod(0o755)
    (site,) = folder.glob("lib/*/site-packages")
    paths = [str(ROOT / "src"), *(path for path in sys.path if path.endswith("-packages"))]
    (site / "others.pth").write_text("\n".join(paths) + "\n")
    yield str(folder / "bin" / "python")
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run without root already")
def test_an_ordinary_user_gets_a_sandbox_that_holds(python, tensor_dataset):
    attacks = Path(__file__).parents[2] / "attacks"
    expected, sources = {}, {"solution": tensor_dataset.solution}
    for name in ATTACKS:
        source = (attacks / f"{name}.py").read_text()
        told = ast.get_docstring(ast.parse(source))
        expected[name] = re.search(r"^Expect: (.+)$", told, flags=re.MULTILINE)[1].split(" | ")
        whole = "def create_dataset" in source
        sources[name] = source if whole else f"{source}\n\n{tensor_dataset.solution}"
    done = subprocess.run(
        [python, "-c", PROGRAM.format(nobody=NOBODY, python=python)],
        input=json.dumps(sources),
        capture_output=True,
        text=True,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        env={"HOME": "/tmp", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        cwd="/tmp",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert {"limits", "seccomp", "landlock"} <= set(report["layers"])
    if Path("/proc/sys/user/max_user_namespaces").read_text().strip() != "0":
        assert "namespaces" in report["layers"]
    assert report["told"].pop("solution") == report["told"].pop("again") == "accepted"
    for name, verdict in report["told"].items():
        assert verdict in [each.strip() for each in expected[name]], name
