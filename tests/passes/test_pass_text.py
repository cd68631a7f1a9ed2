"""The text form of passes: round trip, and errors that say what was wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.fx import GraphModule

from fxquant.errors import PipelineError, RegistrationError
from fxquant.passes import registry
from fxquant.passes.base import Pass, PassResult
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.registry import register_pass, registered_passes


@dataclass(frozen=True)
class Sample(Pass):
    """A pass with an option of every type."""

    name: ClassVar[str] = "sample"

    count: int = 3
    limit: float = 0.5
    strict: bool = False
    label: str = "plain"
    axes: tuple[int, ...] = ()
    bound: float | None = None
    mode: Literal["fast", "exact"] = "fast"
    names: tuple[str, ...] = ()

    def run(self, graph_module: GraphModule) -> PassResult:
        return PassResult(graph_module, False)


@pytest.fixture(autouse=True)
def sample_pass() -> Iterator[None]:
    registered_passes()
    register_pass(Sample)
    yield
    registry._passes.pop("sample")


samples = st.builds(
    Sample,
    count=st.integers(),
    limit=st.floats(allow_nan=False),
    strict=st.booleans(),
    label=st.text(),
    axes=st.lists(st.integers()).map(tuple),
    bound=st.none() | st.floats(allow_nan=False),
    mode=st.sampled_from(["fast", "exact"]),
    names=st.lists(st.text(min_size=1)).map(tuple),
)


@given(st.lists(samples, max_size=4))
def test_any_options_survive_the_round_trip(passes: list[Sample]) -> None:
    pipeline = Pipeline(tuple(passes))
    assert Pipeline.parse(str(pipeline)) == pipeline


def test_every_registered_pass_survives_the_round_trip() -> None:
    for cls in registered_passes().values():
        if cls is not Pipeline and not any(
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            for field in dataclasses.fields(cls)
        ):
            assert Pipeline.parse(str(cls())).passes == (cls(),)


def test_nested_lists_survive_the_round_trip() -> None:
    pipeline = Pipeline((Sample(), Pipeline((Sample(count=4), Sample())), Sample()))
    assert str(pipeline) == "sample,(sample{count=4},sample),sample"
    assert Pipeline.parse(str(pipeline)) == pipeline


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sampel", "there is no pass named 'sampel'"),
        ("sample{cuont=3}", "the pass sample has no option 'cuont'"),
        ("sample{count=many}", "option 'count' of pass sample needs a value of type int"),
        ("sample{count}", "option 'count' of pass sample has no value"),
        ("sample{mode=slow}", "must be one of fast, exact, got 'slow'"),
        ("sample{axes=3}", "needs a list [a;b;…], got '3'"),
        ("sample{count=3", "a bracket is opened and not closed"),
        ("sample}", "a bracket is closed that was not opened"),
        ('sample{label="x}', "a quote is opened and not closed"),
    ],
)
def test_bad_text_is_refused_with_its_reason(text: str, message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        Pipeline.parse(text)
    assert message in str(caught.value)


def test_a_second_pass_under_a_taken_name_is_refused() -> None:
    @dataclass(frozen=True)
    class Other(Sample):
        """Another pass of the same name."""

    with pytest.raises(RegistrationError, match="the pass name 'sample' is taken by"):
        register_pass(Other)
    register_pass(override=True)(Other)
    assert registered_passes()["sample"] is Other
