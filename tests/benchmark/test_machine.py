import torch

from terralean.benchmark.config import Size, Workload
from terralean.benchmark.machine import Product, Rate, describe, product_call, products, rate, threads
from terralean.cost.timing import Timing

CPU = torch.device("cpu")


def test_products_are_square_and_of_lemevits_shape_in_each_precision():
    workloads = [Workload(batch, size) for batch in (1, 8) for size in (Size(224, 224), Size(100, 60))]
    assert list(products(workloads, ("fp32", "bf16"), CPU)) == [
        Product("square", "fp32", 1024, 1024, 1024),
        Product("lemevit", "fp32", 8 * 14 * 14, 192, 768),
        Product("square", "bf16", 1024, 1024, 1024),
        Product("lemevit", "bf16", 8 * 14 * 14, 192, 768),
    ]
    assert not list(products([], ("fp32",), CPU))


def test_product_is_that_of_its_shape_and_precision():
    found = product_call(Product("any", "bf16", 5, 6, 7), device=CPU, seed=0)()
    assert found.shape == (5, 7)
    assert found.dtype == torch.bfloat16


def test_rate_counts_two_operations_for_each_multiplication():
    kind = Product("any", "fp32", 1000, 2000, 3000)
    assert rate(kind, Timing(wall_s=(2.0, 1.0, 4.0), processor_s=(1.0,) * 3, calls=1)) == Rate(
        kind, gflops=12 / 2, gflops_low=12 / 3, gflops_high=12 / 1.5
    )


def test_machine_is_the_one_that_torch_runs_on():
    machine = describe(CPU)
    assert machine.threads == torch.get_num_threads()
    assert machine.torch == torch.__version__
    assert machine.device == machine.processor
    assert machine.tf32 is None
    assert threads(machine) in ("1 CPU thread", f"{machine.threads} CPU threads")
