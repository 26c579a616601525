"""What the benchmark of learned encoders computes beside its measurements, and what it refuses."""

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.random_checkpoint import MERT_CONFIG
from musichal.hearing.encoders.checkpoint import parse_config

pytest.importorskip("onnxruntime", reason="the extra 'onnxruntime' is not installed")


@pytest.mark.parametrize(("layer", "gflop"), [(12, 14.55), (7, 10.85), (6, 10.11)])
def test_the_work_of_a_window_is_what_was_counted_by_hand(layer: int, gflop: float) -> None:
    """For MERT-v1-95M, two sources of 350 ms: convolutions 5.14, projection 0.04, positions 0.49, a layer 0.74 GFLOP."""
    from benchmarks.encoder_speed import network_flops

    config = parse_config(MERT_CONFIG, "MERT")
    assert network_flops(config, samples=8400, layer=layer, batch=2) / 1e9 == pytest.approx(gflop, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--encoder", "mret"], "--encoder must be 'spectral' or 'mert'"),
        (["hearing", "--weights", "."], "--weights is for the part encoder"),
        (["encodre"], "there is no benchmark 'encodre'; there are: hearing, memory"),
        (["encoder", "--weights", "nowhere"], "there is no folder 'nowhere'"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert said in result.stderr
