"""The command line as a user meets it: each test starts a process."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import pytest

from configs import tiny
from navigan_jax import config as config_lib
from navigan_jax import main

ROOT = pathlib.Path(__file__).resolve().parents[1]

CONFIG = """
from ml_collections import config_dict

def get_config():
    config = config_dict.ConfigDict()
    config.task = "probe"
    config.distributed = False
    config.compilation_cache = True
    config.seed = 0
    config.generator = config_dict.ConfigDict()
    config.generator.weights = config_dict.placeholder(str)
    config.generator.layers = ("conv0",)
    return config
"""

# Runs main with one task of its own, whose body is put in.
PROBE = """
from navigan_jax import main, tasks

def probe(config, workdir):
{body}

tasks.TASKS = {{"probe": probe}}
main.run()
"""


@pytest.fixture
def config(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "probe.py"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def run(
    *arguments: str | pathlib.Path, body: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs main with these arguments, and with a task of its own if there is a body for it.

    variables: of the environment.
    """
    program = ["-c", PROBE.format(body=body)] if body else ["-m", "navigan_jax.main"]
    command = [sys.executable, *program, *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_one_message(done: subprocess.CompletedProcess[str], message: str) -> None:
    """One line on stderr that holds `message`, nothing on stdout, exit code 2."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and message in done.stderr, done.stderr
    assert not done.stdout


def test_help_tells_how_to_run_and_what_exit_codes_mean() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert not done.stderr
    for part in ("--config=configs/", "--config.seed=1", "--workdir", "Exit codes", "flags:"):
        assert part in done.stdout


def test_importing_main_does_not_import_jax() -> None:
    """What answers --help and mistakes in the config has to be quick."""
    code = "import sys, navigan_jax.main; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config: expected a path; got nothing; add one, for example --config=configs/"),
        (["--config=CONFIG"], "--workdir: expected a path; got nothing; add one, for example"),
        (["--config"], "--config: expected a value; got nothing; write --config=VALUE; see --help"),
        (["--config=CONFIG", "--wrokdir=a"], "Unknown command line flag 'wrokdir'. Did you mean"),
        (["--config=CONFIG.py", "--workdir=DIR"], "which is no file; allowed: any such file"),
        (
            ["--config=CONFIG", "--workdir=DIR", "--config.sed=1"],
            "config.sed: expected a known key; got 'sed'; did you mean seed? allowed: "
            "compilation_cache, distributed, generator.layers, generator.weights, seed, task; "
            "correct or remove it",
        ),
        (
            ["--config=CONFIG", "--workdir=DIR", "--config.generator.wieghts=a"],
            "did you mean generator.weights?",
        ),
        (
            ["--config=CONFIG", "--workdir=DIR", "--config.seed=1:5"],
            "config.seed: expected int; got '1:5'; set it in the config file or with "
            "--config.seed=1",
        ),
        (
            ["--config=CONFIG", "--workdir=DIR", "--config.generator.layers=('a',"],
            "config.generator.layers: expected tuple; got \"('a',\"; ",
        ),
        (
            ["--config=CONFIG", "--workdir=DIR", "--config.distributed=perhaps"],
            "config.distributed: expected bool; got 'perhaps'; ",
        ),
        (["--config.seed=1", "--workdir=DIR"], "--config: expected a path; got nothing; add one"),
        (["--config=CONFIG", "--workdir=DIR", "seed=1"], "got 'seed=1'; quote a value that has"),
        (["--config=CONFIG", "--workdir=CONFIG"], "a part of the path is a file: choose another"),
    ],
)
def test_mistake_in_the_command_is_one_message(
    config: pathlib.Path, tmp_path: pathlib.Path, arguments: list[str], message: str
) -> None:
    places = {"CONFIG": str(config), "DIR": str(tmp_path / "results")}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    assert_one_message(run(*arguments), message)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("config.seed = 0", "config.seed = = 0", "probe.py:9: expected Python; got 'config.seed ="),
        ("config.distributed = False", "", "config.distributed: expected bool; got a config "),
        ('"probe"', "3", "config.task: expected str; got 3"),
        ("placeholder(str)", "required_placeholder(str)", "weights: expected placeholder(str); "),
    ],
)
def test_mistake_in_the_config_file_is_one_message(
    config: pathlib.Path, tmp_path: pathlib.Path, old: str, new: str, message: str
) -> None:
    assert old in CONFIG
    config.write_text(CONFIG.replace(old, new), encoding="utf-8")
    assert_one_message(run(f"--config={config}", f"--workdir={tmp_path / 'results'}"), message)


def test_unknown_task_lists_the_known_ones(config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = run(f"--config={config}", f"--workdir={tmp_path}", "--config.task=probing", body="  1")
    assert_one_message(
        done, "config.task: expected the name of a task; got 'probing'; allowed: probe; "
    )


def test_task_gets_the_frozen_config_and_its_directory(
    config: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Flags stand in any order; both paths may be told by a ~ for the home folder."""
    body = (
        "  print(type(config).__name__, config.seed, config.generator.to_dict())\n"
        "  print(workdir.is_dir(), workdir)"
    )
    done = run(
        "--config.seed=6",
        "--config.generator.weights",
        "a file",
        "--config",
        f"~/{config.name}",
        "--config.seed=7",
        "--config.generator.layers=('a', 'b')",
        "--workdir=~/new/results",
        body=body,
        HOME=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "FrozenConfigDict 7 {'layers': ('a', 'b'), 'weights': 'a file'}",
        f"True {tmp_path / 'new' / 'results'}",
    ]


def test_settings_of_jax_that_would_change_numbers_are_set_aside(
    config: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Each is named in a line on stderr."""
    variables = {"JAX_ENABLE_X64": "1", "JAX_DISABLE_JIT": "1", "JAX_RANDOM_SEED_OFFSET": "3"}
    body = (
        "  import jax\n"
        "  x = jax.random.normal(jax.random.key(0))\n"
        "  print(x.dtype, float(x), jax.jit(lambda x: isinstance(x, jax.core.Tracer))(1))"
    )
    done = run(f"--config={config}", f"--workdir={tmp_path}", body=body, **variables)
    assert done.returncode == 0, done.stderr
    told = [line.partition("=")[0] for line in done.stderr.splitlines()]
    assert sorted(told) == sorted(variables)
    assert done.stdout == f"float32 {float(jax.random.normal(jax.random.key(0)))} True\n"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"JAX_PLATFORMS": "none"}, "got JAX_PLATFORMS=none; allowed: cpu; unset the variable to"),
        ({"JAX_DEFAULT_DEVICE": "gpu"}, "got JAX_PLATFORMS=cpu JAX_DEFAULT_DEVICE=gpu; allowed: c"),
    ],
    ids=["JAX_PLATFORMS", "JAX_DEFAULT_DEVICE"],
)
def test_devices_that_are_not_there_are_one_message(
    config: pathlib.Path, tmp_path: pathlib.Path, variables: dict[str, str], message: str
) -> None:
    done = run(f"--config={config}", f"--workdir={tmp_path}", body="  print(1)", **variables)
    assert_one_message(done, message)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"JAX_ENABLE_X64": "maybe"}, "'maybe' for environment 'JAX_ENABLE_X64'; correct that var"),
        ({"XLA_FLAGS": "--xla_none"}, "got: Unknown flag in XLA_FLAGS: --xla_none; correct that "),
    ],
    ids=["JAX_ENABLE_X64", "XLA_FLAGS"],
)
def test_variables_that_jax_can_not_read_are_one_message(
    config: pathlib.Path, tmp_path: pathlib.Path, variables: dict[str, str], message: str
) -> None:
    assert_one_message(run(f"--config={config}", f"--workdir={tmp_path}", **variables), message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "  from navigan_jax.errors import InputError\n"
            "  raise InputError('layer: expected a; got b')",
            "layer: expected a; got b\n",
        ),
        (
            "  raise MemoryError",
            "memory: expected the run to fit; got MemoryError; make fewer or smaller images at on",
        ),
        (
            "  import jax\n"
            "  raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: no room\\nfor 8 bytes')",
            "got RESOURCE_EXHAUSTED: no room; make fewer or smaller images at once, and run again",
        ),
    ],
)
def test_mistake_found_by_a_task_is_one_message(
    config: pathlib.Path, tmp_path: pathlib.Path, body: str, message: str
) -> None:
    assert_one_message(run(f"--config={config}", f"--workdir={tmp_path}", body=body), message)


@pytest.mark.parametrize(
    ("experiment", "advice"),
    [
        ("hessian", "lower config.microbatch with --config.microbatch=N, down to 1 (then config."),
        ("maps", "lower config.microbatch with --config.microbatch=N, down to 1 (then config.show"),
        ("gallery", "lower config.show.samples with --config.show.samples=N, down to 1 (then con"),
        ("edit", "make fewer or smaller images at once, and run again"),
    ],
)
def test_what_to_lower_is_a_key_of_the_config(experiment: str, advice: str) -> None:
    config = config_lib.freeze(tiny.get_config(experiment))
    assert main._what_to_lower(config).startswith(advice)


def test_memory_that_is_really_too_small_is_one_message(
    config: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """XLA's own words for it, got by asking for a million gigabytes."""
    body = "  import jax.numpy as jnp\n  jnp.zeros((10**5, 10**5, 10**5), jnp.uint8) + 1"
    done = run(f"--config={config}", f"--workdir={tmp_path}", body=body)
    assert_one_message(done, "memory: expected the run to fit; got RESOURCE_EXHAUSTED: ")


def test_fault_of_the_program_keeps_its_traceback(
    config: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = run(f"--config={config}", f"--workdir={tmp_path}", body="  raise ValueError('a bug')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and done.stderr.endswith("ValueError: a bug\n")


def test_interruption_is_not_lost_in_a_garbage_collection(
    config: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Python drops what is raised there, and JAX has something to do at every one."""
    body = (
        "  import gc, os, signal, time\n"
        "  def at_collection(phase, info):\n"
        "    gc.callbacks.remove(at_collection)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "  gc.callbacks.append(at_collection)\n"
        "  gc.collect()\n"
        "  time.sleep(60)"
    )
    done = run(f"--config={config}", f"--workdir={tmp_path}", body=body)
    assert done.returncode == 143
    assert done.stderr == "interrupted; run the same command again to resume\n"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_interruption_cleans_up_and_says_how_to_resume(
    config: pathlib.Path, tmp_path: pathlib.Path, number: signal.Signals, code: int
) -> None:
    body = (
        "  import time\n"
        "  from navigan_jax import checkpoints\n"
        "  with checkpoints.atomic_output(workdir / 'result.txt'):\n"
        "    (workdir / 'ready').touch()\n"
        "    time.sleep(60)"
    )
    results = tmp_path / "results"
    command = [sys.executable, "-c", PROBE.format(body=body)]
    command += [f"--config={config}", f"--workdir={results}"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not (results / "ready").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, number)
        _, message = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code
    assert message == "interrupted; run the same command again to resume\n"
    assert [path.name for path in results.iterdir()] == ["ready"]
