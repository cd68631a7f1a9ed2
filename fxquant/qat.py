"""What a training with rounding may need beside `prepare_qat`: schedules, checkpoints.

fq.qat.freeze_batch_norms(prepared)
schedule = fq.qat.QatSchedule(prepared, freeze_batch_norms_at=1500)
"""

from __future__ import annotations

from fxquant.quant.batch_norm import reestimate_batch_norm
from fxquant.quant.qat.checkpoint import load_checkpoint
from fxquant.quant.qat.schedule import (
    QatSchedule,
    freeze_batch_norms,
    quantize_values,
    track_ranges,
)

__all__ = [
    "QatSchedule",
    "freeze_batch_norms",
    "load_checkpoint",
    "quantize_values",
    "reestimate_batch_norm",
    "track_ranges",
]
