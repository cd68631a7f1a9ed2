"""The shipped pipelines: tables of contents of what fxquant does, in order."""

from __future__ import annotations

from collections.abc import Mapping

from fxquant.errors import PipelineError
from fxquant.passes.annotate import Annotate
from fxquant.passes.base import Pass
from fxquant.passes.batch_norm_to_conv import BatchNormToConv
from fxquant.passes.common_subexpressions import CommonSubexpressions
from fxquant.passes.dead_code import DeadCode
from fxquant.passes.drop_dropout import DropDropout
from fxquant.passes.finish_training import FinishTraining
from fxquant.passes.fold_affine import FoldAffine
from fxquant.passes.fold_constants import FoldConstants
from fxquant.passes.free_batch_size import FreeBatchSize
from fxquant.passes.freeze import Freeze
from fxquant.passes.functionalize import Functionalize
from fxquant.passes.fuse_conv_bn import FuseConvBn
from fxquant.passes.fuse_conv_hardsigmoid import FuseConvHardsigmoid
from fxquant.passes.fuse_patterns import FusePatterns
from fxquant.passes.insert_observers import InsertObservers
from fxquant.passes.insert_stubs import InsertStubs
from fxquant.passes.keep_batch_norms import KeepBatchNorms
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.train_quantizers import TrainQuantizers
from fxquant.passes.unroll_recurrent import UnrollRecurrent
from fxquant.passes.write_integer_steps import WriteIntegerSteps

FLOAT: tuple[Pass, ...] = (
    Functionalize(),
    DropDropout(),
    FusePatterns(),
    FuseConvBn(),
    FuseConvHardsigmoid(),
    BatchNormToConv(),
    FoldConstants(),
    FoldAffine(),
    CommonSubexpressions(),
    DeadCode(),
)

DECIDE: tuple[Pass, ...] = (
    UnrollRecurrent(quantized_only=True),
    WriteIntegerSteps(),
    Annotate(),
)
"""What the configuration decides on a graph in the core dialect."""

OBSERVE: tuple[Pass, ...] = (InsertStubs(), InsertObservers())

PTQ: tuple[Pass, ...] = (*FLOAT, *DECIDE, *OBSERVE)

QAT: tuple[Pass, ...] = (
    Functionalize(),
    FusePatterns(),
    FoldConstants(parameters=False),
    KeepBatchNorms(),
    CommonSubexpressions(),
    DeadCode(),
    *DECIDE,
    *OBSERVE,
    TrainQuantizers(),
    FreeBatchSize(),
)

FREEZE: tuple[Pass, ...] = (FinishTraining(), Freeze())

PIPELINES: Mapping[str, tuple[Pass, ...]] = {
    "float": FLOAT,
    "ptq": PTQ,
    "qat": QAT,
    "freeze": FREEZE,
}


def default_pipeline(method: str) -> Pipeline:
    """The shipped pipeline for a method.

    Raises:
        PipelineError: there is none of that name.
    """
    if method not in PIPELINES:
        fix = f"the known ones are {', '.join(PIPELINES)}"
        raise PipelineError(f"there is no default pipeline {method!r}", fix=fix)
    return Pipeline(PIPELINES[method], title=method)
