"""What each layer's quantization does to the output, as a table."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

import fxquant as fq
from fxquant.errors import CalibrationError, ConfigError, InputError
from tests.mixed.attention_nets import pictures, transformer

DATA = pictures(2)


@functools.cache
def prepared_with_outliers() -> GraphModule:
    model = transformer(outliers=150, depth=1)
    return fq.calibrate(fq.prepare(model, (DATA[0][:1],)), DATA, progress=False)


def test_the_residual_stream_is_what_harms() -> None:
    table = fq.sensitivity(prepared_with_outliers(), DATA, precisions=("int16x8",))
    rows = {(row.layer, row.operator, row.precision): row for row in table}
    add = next(row for row in table if row.operator == "add" and row.precision == "int8")
    wide = rows[add.layer, "add", "int16x8"]
    linear = next(row for row in table if row.nodes == ("blocks_0_qkv",))
    assert add.alone < 15 < 30 < linear.alone
    assert wide.alone > add.alone + 20
    assert table.worst(1)[0].alone <= add.alone
    assert (linear.bytes_saved, add.bytes_saved) == (3 * 16 * 48, 0)
    assert "attention_nets.py" in add.source
    assert table.sqnr < 20


def test_rows_by_module_hold_all_nodes_of_it() -> None:
    table = fq.sensitivity(prepared_with_outliers(), DATA, by="module")
    names = [row.layer for row in table]
    assert len(names) == len(set(names))
    block = next(row for row in table if row.layer == "blocks.0")
    assert {"blocks_0_add", "blocks_0_softmax"} <= set(block.nodes)
    assert "operators" in block.operator


def test_the_table_prints_and_gives_plain_data() -> None:
    table = fq.sensitivity(prepared_with_outliers(), DATA[:1])
    text = table.render()
    assert text.startswith("sensitivity: all together")
    assert "blocks_0_qkv" in text
    first = table.to_dicts()[0]
    assert first["layer"] == "stem" and not math.isnan(first["alone"])


def test_data_are_read_once() -> None:
    reads = 0

    def stream() -> Iterator[Tensor]:
        nonlocal reads
        for batch in DATA:
            reads += 1
            yield batch

    fq.sensitivity(prepared_with_outliers(), stream())
    assert reads == len(DATA)


def test_a_module_is_prepared_first() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4)).eval()
    config = fq.QuantConfig(correct_bias=False)
    table = fq.sensitivity(
        model,
        [(d, 1) for d in DATA],
        example_inputs=(DATA[0][:1],),
        config=config,
        transform=lambda batch: batch[0],
    )
    (row,) = table
    assert row.layer == "1" and row.alone == pytest.approx(table.sqnr)
    assert row.others == math.inf


def test_bad_input() -> None:
    model = transformer(depth=1)
    with pytest.raises(InputError, match="give example_inputs="):
        fq.sensitivity(model, DATA)
    with pytest.raises(InputError, match="read only once"):
        fq.sensitivity(model, iter(DATA), example_inputs=(DATA[0],))
    with pytest.raises(ConfigError, match="no precision 'int7'"):
        fq.sensitivity(prepared_with_outliers(), DATA, precisions=("int7",))
    with pytest.raises(CalibrationError, match="there are no data"):
        fq.sensitivity(prepared_with_outliers(), [])
