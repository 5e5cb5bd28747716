"""Two processes on the CPU train what one would."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from terralean.train.run import run
from terralean.weights.card import read_card

pytestmark = pytest.mark.slow
# What is random in the model is drawn by each process for itself.
SAME = ("train.lr=0.0002", "train.batch=4", "model.sizes={drop_path: 0.0}")
NORMS = ("1d", "2d", "3d", "with activation", "mean of all batches", "without weights", "without statistics", "of large values")
KILLED = """
import os, signal, sys
from pathlib import Path
from terralean import recipes
from terralean.train.run import run
def tell(progress):
    if progress.step == 3 and os.environ.get("RANK", "0") == "0":
        os.kill(os.getpid(), signal.SIGKILL)
experiment = recipes.read("lemevit_tiny_light", changes=sys.argv[3:])
run(experiment, data=Path(sys.argv[1]), out=Path(sys.argv[2]), device="cpu", tell=tell)
"""
EACH_ITS_OWN = """
import os, sys
sys.argv = ["terralean", "train", "lemevit_tiny_light", "--device", "cpu"] + sys.argv[1 + int(os.environ["RANK"])].split()
from terralean.cli import main
main()
"""


def torchrun(*command) -> subprocess.CompletedProcess[str]:
    """A script in two processes."""
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *map(str, command)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120, env=environment)


def by_two(experiment, data: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """terralean train --devices 2."""
    settings = [part for change in (*experiment.changes, *SAME) for part in ("--set", change)]
    line = [sys.executable, "-m", "terralean.cli", "train", "lemevit_tiny_light", "--data", str(data), "--out", str(out)]
    line += ["--device", "cpu", "--devices", "2", *settings, *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120, env=environment)


def rows(out: Path) -> list[dict[str, float]]:
    with (out / "metrics.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def close(one: Path, two: Path) -> None:
    """Metrics and weights agree in four digits. At higher rates AdamW makes more of gradients that are all but zero."""
    for a, b in zip(rows(one), rows(two), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    first, second = (load_file(folder / "weights.safetensors") for folder in (one, two))
    a, b = (torch.cat([value.double().flatten() for value in state.values()]) for state in (first, second))
    assert float((a - b).norm() / a.norm()) < 1e-4


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("answers")
    done = torchrun(Path(__file__).with_name("shares.py"), folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.fixture(scope="module")
def one(data, experiment, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("one") / "run"
    run(experiment(*SAME), data=data, out=out, device="cpu")
    return out


@pytest.fixture(scope="module")
def two(data, experiment, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("two") / "run"
    return out, by_two(experiment, data, out, "--json")


@pytest.mark.parametrize("name", NORMS)
def test_batch_norm_of_halves_is_that_of_the_whole(answers, name):
    """Output, gradients, running statistics and what evaluation makes of them, against torch's own on the whole batch."""
    for answer in answers:
        want, found = answer["norm"][name]["want"], answer["norm"][name]["found"]
        tolerance = {"rtol": 1e-3, "atol": 2e-2} if name == "of large values" else {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(found, want, **tolerance)


def test_loss_of_halves_is_that_of_the_whole(answers):
    """Value and gradients of scores, auxiliary scores and foreground; the processes have neither labels nor classes alike."""
    for answer in answers:
        torch.testing.assert_close(answer["loss"]["found"], answer["loss"]["want"], rtol=1e-6, atol=1e-8)
    own = [float(answer["loss"]["own"]) for answer in answers]
    assert abs(own[0] - own[1]) > 0.1
    assert abs(sum(own) / 2 - float(answers[0]["loss"]["want"][0])) > 0.01


def test_gradients_of_a_model_are_those_of_one_process(answers):
    for answer in answers:
        assert answer["model"]["gradients"] < 1e-5
        assert answer["model"]["buffers"] < 1e-6


def test_processes_tell_one_another(answers):
    first, second = (answer["word"] for answer in answers)
    assert first["names"] == second["names"]
    assert first["names"][1].startswith("process 1 on ")
    assert (first["every"], second["every"]) == (0, 10)
    assert first["first"] == second["first"] == {"said by": 0}
    assert first["same"] is None


def test_a_mistake_of_one_stops_all_and_is_told_once(answers):
    first, second = (answer["word"] for answer in answers)
    names = first["names"]
    assert first["one failed"] == ("ConfigError", f"{names[1]}: no such folder")
    assert first["all failed"] == ("ConfigError", "no such folder")
    assert first["first failed"] == ("ConfigError", "disk full")
    seed = f"the processes would not train the same:\n  seed: 0 in {names[0]}, 1 in {names[1]}\ngive all processes the same"
    assert first["differ"] == ("RunError", seed)
    assert "setting 5" in first["differ much"][1]
    assert "setting 6" not in first["differ much"][1]
    assert "and 3 more" in first["differ much"][1]
    for name in ("one failed", "all failed", "first failed", "differ", "differ much"):
        assert second[name] == ("Stopped", f"{names[0]} says why")
    assert second["broken"] == ("LabelError", "mask holds 77")
    assert first["broken"] == ("Stopped", "another process failed, and says why")


def test_two_processes_train_what_one_does(one, two):
    out, done = two
    assert done.returncode == 0, done.stderr
    close(one, out)


def test_the_folder_and_the_answer_are_those_of_one_run(one, two, experiment, data):
    out, done = two
    document = json.loads(done.stdout)
    assert document["run"] == str(out)
    assert document["steps"] == 6
    assert document["validation"] == pytest.approx(max(row["val_miou"] for row in rows(out)), abs=1e-6)
    assert done.stderr.count("leakage: no leak found") == 1
    assert {path.name for path in out.iterdir()} == {path.name for path in one.iterdir()}
    assert len([*(out / "tensorboard").glob("events*")]) == 1
    assert [(out / name).read_text() == (one / name).read_text() for name in ("recipe.yaml", "split.json")] == [True, True]
    card = read_card(out)
    assert (card.cost, card.normalisation) == (read_card(one).cost, read_card(one).normalisation)
    again = by_two(experiment, data, out)
    assert again.returncode == 0
    assert "was finished before" in again.stdout
    assert again.stdout.count("6 steps") == 1


def test_a_killed_run_of_two_goes_on_to_the_same_weights(two, data, experiment, tmp_path):
    out = tmp_path / "run"
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    killed = torchrun(script, data, out, *experiment.changes, *SAME)
    assert killed.returncode != 0
    assert [row["step"] for row in rows(out)] == [2]
    assert not (out / "card.json").exists()
    assert by_two(experiment, data, out).returncode == 0
    whole, again = (load_file(folder / "weights.safetensors") for folder in (two[0], out))
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []
    assert rows(two[0]) == rows(out)


def test_a_run_of_one_goes_on_with_two(one, data, experiment, tmp_path):
    out = tmp_path / "run"
    line = [sys.executable, "-c", KILLED, str(data), str(out), *experiment.changes, *SAME]
    assert subprocess.run(line, capture_output=True, check=False).returncode == -9
    assert by_two(experiment, data, out).returncode == 0
    close(one, out)


def test_processes_with_other_data_or_settings_are_refused(data, experiment, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for path in data.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / "index.csv").write_text((data / "index.csv").read_text().replace("1_mask.tif,train", "1_mask.tif,test"))
    script = tmp_path / "each.py"
    script.write_text(EACH_ITS_OWN)
    common = f"--out {tmp_path / 'run'} " + " ".join(f"--set {change}" for change in experiment.changes)
    done = torchrun(script, f"--data {data} {common}", f"--data {other} {common}")
    assert done.returncode != 0
    assert done.stderr.count("the processes would not train the same") == 1
    assert "training data: " in done.stderr
    assert " in process 1 on " in done.stderr
    assert "validation" not in done.stderr.split("would not train the same")[1].split("give all")[0]
    done = torchrun(script, f"--data {data} {common}", f"--data {data} {common} --set train.lr=0.5")
    assert "  train.lr: 0.002 in process 0 on " in done.stderr
    assert not (tmp_path / "run").exists()


def test_srun_starts_what_torchrun_would(two, data, experiment, tmp_path):
    """Two tasks with the environment that srun gives them."""
    settings = [part for change in (*experiment.changes, *SAME) for part in ("--set", change)]
    line = [sys.executable, "-m", "terralean.cli", "train", "lemevit_tiny_light", "--data", str(data), "--device", "cpu"]
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"}
    step |= {"SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_ID": str(os.getpid()), "OMP_NUM_THREADS": "1"}
    tasks = [
        subprocess.Popen(
            [*line, "--out", str(tmp_path / "run"), *settings],
            env=os.environ | step | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for rank in "01"
    ]
    said = [task.communicate(timeout=120)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0]
    assert ["6 steps" in text for text in said] == [True, False]
    whole, again = (load_file(folder / "weights.safetensors") for folder in (two[0], tmp_path / "run"))
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []


def test_mistakes_are_status_2_told_once(data, experiment, tmp_path):
    done = by_two(experiment, data, tmp_path / "run", "--set", "train.batch=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("train.batch 3 cannot be dealt out evenly to 2 processes") == 1
    done = by_two(experiment, tmp_path / "nowhere", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.count("nowhere is not there") == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
