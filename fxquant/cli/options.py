"""Options that several commands take, each with one wording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(help="package.module:factory or path/file.py:factory")]
Inputs = Annotated[
    list[str],
    typer.Option("--input", help="1,3,224,224 or ids=1,128:int64; once for each input."),
]
Weights = Annotated[Path | None, typer.Option(help="State dict: .safetensors or .pt.")]
Data = Annotated[Path | None, typer.Option(help="Folder of pictures, or .npz, .npy, .safetensors.")]
Limit = Annotated[int, typer.Option(min=1, help="Use at most so many samples.")]
Mean = Annotated[str, typer.Option(help="Of pictures in 0…1; one value or one a channel.")]
Std = Annotated[str, typer.Option(help="Of pictures in 0…1; one value or one a channel.")]
Size = Annotated[
    int | None, typer.Option(min=1, help="Shorter side of pictures before the center crop.")
]
Config = Annotated[
    Path | None, typer.Option(help="YAML of precisions, e.g. from `fxquant config`.")
]
