"""Training with rounding on two processes: ranks agree on every scale, one file comes out.

    python -m examples.ddp_qat [folder] [--epochs 2]

Each process trains on its half of the handwritten digits, under `DistributedDataParallel` with
gloo. Gradients are averaged as always; ranges are those of both halves, so that all ranks round to
one grid. Rank 0 writes the file and runs it in LiteRT.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

import fxquant as fq
from examples.digits import Digits, LiteRTModel, digits, measure, train
from examples.qat import finetune

RANKS = 2


def scales_differ(prepared: torch.fx.GraphModule) -> int:
    """How many scales and zero points are not the same bits on all ranks."""
    count = 0
    for name, tensor in prepared.state_dict().items():
        if name.endswith((".scale", ".zero_point")):
            both = [torch.empty_like(tensor) for _ in range(RANKS)]
            dist.all_gather(both, tensor)
            count += not torch.equal(both[0], both[1])
    return count


def worker(rank: int, meeting: str, folder: Path, epochs: float) -> None:
    """What one process does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=RANKS)
    seen, unseen = digits()
    model = train(seen, epochs=4)
    prepared = fq.prepare_qat(model, (seen.images[:1],))
    wrapped = DistributedDataParallel(prepared)
    torch.manual_seed(rank)
    size = len(seen.labels) // RANKS
    mine = slice(rank * size, rank * size + size)
    half = Digits(seen.images[mine], seen.labels[mine])
    finetune(wrapped, half, epochs, rate=0.002, mirrored=False)
    differing = scales_differ(prepared)
    if rank == 0:
        path = folder / "digits.ddp.tflite"
        frozen = fq.convert(prepared)
        fq.lower(frozen, "tflite").save(path)
        accuracy = measure(LiteRTModel(path), unseen).accuracy
        simulated = measure(frozen, unseen).accuracy
        float_accuracy = measure(model, unseen).accuracy
        print(f"scales that differ between ranks: {differing}")
        print(f"accuracy: float {float_accuracy:.1%}, simulated {simulated:.1%}")
        print(f"accuracy of {path.name} in LiteRT: {accuracy:.1%}")
    dist.destroy_process_group()


def main(arguments: Sequence[str] | None = None) -> None:
    """Starts the processes and waits for them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="for the file")
    parser.add_argument("--epochs", type=float, default=2)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        meeting = (Path(place) / "meeting").as_uri()
        start_processes(worker, (meeting, options.folder, options.epochs), nprocs=RANKS)


if __name__ == "__main__":
    main()
