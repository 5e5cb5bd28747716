import pytest
import torch
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from terralean.errors import ConfigError
from terralean.train.config import TrainConfig
from terralean.train.processes import Processes, cluster, devices, find_processes, share_of_batch, strategy

CPU = torch.device("cpu")
TORCHRUN = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "one",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_PROCID": "6",
    "SLURM_LOCALID": "2",
    "SLURM_NODEID": "1",
    "SLURM_NODELIST": "gpu[03-04]",
    "SLURM_JOB_ID": "1234567",
    "SLURM_JOB_NAME": "map",
}


def found(device=None, devices=None, *, environment=(), gpus=0):
    return find_processes(device, devices, environment=dict(environment), gpus=gpus)


def test_one_process_where_nothing_is_said():
    assert found("cpu") == Processes(device=CPU)
    assert not found("cpu", 1).to_start


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [("cpu", 8, CPU), (None, 0, CPU), (None, 2, torch.device("cuda", 0)), ("cuda", 2, torch.device("cuda", 0))],
)
def test_several_processes_are_to_be_started(device, gpus, expected):
    processes = found(device, 2, gpus=gpus)
    assert processes == Processes(device=expected, count=2, here=2)
    assert processes.to_start


def test_torchrun_says_which_process_this_is():
    processes = found(environment=TORCHRUN, gpus=4)
    assert processes == Processes(device=torch.device("cuda", 1), count=8, rank=5, here=4, launcher="torchrun")
    assert not processes.to_start
    assert found("cpu", 8, environment=TORCHRUN) == Processes(device=CPU, count=8, rank=5, here=4, launcher="torchrun")


def test_srun_says_which_process_this_is():
    processes = found(environment=SRUN, gpus=4)
    assert processes == Processes(device=torch.device("cuda", 2), count=8, rank=6, here=4, launcher="srun")


def test_a_batch_script_of_slurm_is_one_process_until_it_calls_srun():
    batch = {name: value for name, value in SRUN.items() if name != "SLURM_STEP_NUM_TASKS"}
    assert found("cpu", environment=batch) == Processes(device=CPU)
    assert found("cpu", 2, environment=batch).to_start


def test_a_launcher_that_starts_one_process_leaves_the_rest_to_devices():
    assert found("cpu", environment=TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"}) == Processes(device=CPU)
    assert found("cpu", 2, environment=SRUN | {"SLURM_STEP_NUM_TASKS": "1"}).to_start


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"devices": 0}, "--devices must be 1 or more, got 0"),
        ({"devices": -2}, "--devices must be 1 or more, got -2"),
        ({"device": "cuda", "devices": 4, "gpus": 1}, r"--devices 4 asks for 4 GPUs, this machine \(.+\) has 1; ask for fewer"),
        ({"devices": 4, "gpus": 2}, r"this machine \(.+\) has 2; ask for fewer, or use --device cpu"),
        ({"device": "cuda", "devices": 2}, r"has 0"),
        ({"device": "cuda:1", "devices": 2, "gpus": 2}, "--device cuda:1 cannot be shared by 2 processes; use cuda"),
        ({"device": "mps", "devices": 2}, "--device mps cannot be shared"),
        ({"devices": 2, "environment": TORCHRUN}, "--devices is 2, but torchrun started 8 processes; leave it out"),
        ({"environment": TORCHRUN, "gpus": 3}, "torchrun started 4 processes that need a GPU each, .* has 3; start fewer, or"),
        ({"environment": SRUN, "gpus": 1}, r"srun started 4 .* has 1; start fewer, and give GPUs to nodes \(--gpus-per-node\)"),
        (
            {"environment": {name: value for name, value in SRUN.items() if name != "SLURM_NTASKS_PER_NODE"}},
            "srun started 8 tasks by --ntasks; say how many with --nodes and --ntasks-per-node",
        ),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        found(**arguments)


def test_lightning_averages_gradients_of_many_by_nccl_or_gloo():
    assert strategy(found("cpu")) == "auto"
    for processes, backend in ((found("cpu", 2), "gloo"), (found(None, 2, gpus=2), "nccl")):
        chosen = strategy(processes)
        assert isinstance(chosen, DDPStrategy)
        assert chosen.process_group_backend == backend


def test_lightning_gets_the_number_of_processes_on_a_machine_or_the_one_gpu():
    assert devices(Processes(device=CPU)) == 1
    assert devices(Processes(device=torch.device("cuda", 3))) == [3]
    assert devices(Processes(device=torch.device("cuda", 1), count=8, rank=5, here=4, launcher="torchrun")) == 4


def test_lightning_reads_ranks_where_the_launcher_wrote_them(monkeypatch):
    assert isinstance(cluster(None), LightningEnvironment)
    for name, value in (SRUN | TORCHRUN).items():
        monkeypatch.setenv(name, value)
    assert isinstance(cluster("torchrun"), TorchElasticEnvironment)
    assert cluster("torchrun").global_rank() == 5
    slurm = cluster("srun")
    assert isinstance(slurm, SLURMEnvironment)
    assert (slurm.global_rank(), slurm.local_rank(), slurm.world_size(), slurm.auto_requeue) == (6, 2, 8, False)
    monkeypatch.delenv("MASTER_ADDR")
    assert slurm.main_address == "gpu03"


@pytest.mark.parametrize(("batch", "count", "accumulate", "share"), [(8, 1, 1, 8), (8, 2, 1, 4), (8, 2, 2, 2), (8, 1, 4, 2)])
def test_the_batch_is_that_of_all_processes_and_parts(batch, count, accumulate, share):
    config = TrainConfig(steps=100, validate_every=1, batch=batch, accumulate=accumulate)
    assert share_of_batch(config, count=count) == share


@pytest.mark.parametrize(
    ("batch", "count", "accumulate", "message"),
    [
        (8, 3, 1, r"train\.batch 8 cannot be dealt out evenly to 3 processes in 1 parts each .*; with 6 or 9 it can"),
        (8, 2, 3, "to 2 processes in 3 parts each .*; with 6 or 12 it can"),
        (2, 4, 1, "with 4 it can"),
    ],
)
def test_a_batch_without_equal_shares_is_refused(batch, count, accumulate, message):
    config = TrainConfig(steps=100, validate_every=1, batch=batch, accumulate=accumulate)
    with pytest.raises(ConfigError, match=message):
        share_of_batch(config, count=count)
