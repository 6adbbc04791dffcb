"""Does a net give the same in the published code and here? Both directions, on the same input.

    git clone the repository weigertlab/tarrow; pip install torchvision dill tensorboard gitpython
    python -m benchmarks.published_model path/of/tarrow

`theirs_here`: a net of the published code, all its weights and batch-norm statistics drawn at random, saved
by it and read by `tapray.model.tarrow`; `ours_there`: a net of ours, written by it and read by the published
code. Figures are the largest absolute differences of dense features and arrow logits over crop pairs of
several sizes, and the smaller standard deviation of both. Exits with 1 where a difference is above 1e-5 or
features and logits are all but constant.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import emit
from tapray.model.tap import TapNet, initialise_paper
from tapray.model.tarrow import read_tarrow, write_tarrow

SIZES = ((48, 48), (50, 50), (61, 61), (96, 96), (40, 67))  # px; some are no multiple of the U-Net's 8
TOLERANCE = 1e-5


def scramble(net: torch.nn.Module, shape: tuple[int, ...], generator: torch.Generator) -> None:
    """Weights, gains and biases of chance; means and variances as they come of it."""
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if value.ndim > 1:
                value.normal_(0, value[0].numel() ** -0.5, generator=generator)
            elif value.is_floating_point():
                near = 1.0 if name.endswith(("running_var", "weight")) else 0.0
                value.uniform_(near - 0.5, near + 0.5, generator=generator)
        for _ in range(50):
            net(torch.randn(shape, generator=generator))


def differences(ours: TapNet, theirs: Any, generator: torch.Generator) -> dict[str, float]:
    """The largest of dense features and of arrow logits."""
    ours.eval()
    theirs.eval()
    features, logits, spread = list[float](), list[float](), list[float]()
    for size in SIZES:
        noise, amount, light = (
            torch.randn(4, 2, *sides, generator=generator) for sides in (size, (1, 1), (1, 1))
        )
        pairs = noise * amount + 2 * light  # frames unlike each other, whose logits differ
        with torch.no_grad():
            own, dense = ours(pairs)
            other, projections = theirs(pairs[:, :, None], mode="both")
        features.append(float((dense - projections).abs().max()))
        logits.append(float((own - other).abs().max()))
        spread.append(min(float(projections.std()), float(other.std())))
    return {"features": max(features), "logits": max(logits), "spread": min(spread)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkout", type=Path)
    given = parser.parse_args()
    sys.path.insert(0, str(given.checkout))
    logging.disable(logging.INFO)
    from tarrow.models import TimeArrowNet

    generator, options = torch.Generator().manual_seed(0), {"n_features": 32, "symmetric": True}
    with tempfile.TemporaryDirectory() as name:
        saved, written = Path(name) / "theirs", Path(name) / "ours"
        theirs = TimeArrowNet("unet", "minimal_batchnorm", outdir=saved, **options)
        scramble(theirs, (8, 2, 1, 32, 32), generator)
        theirs.save(which="state")
        figures = {"theirs_here": differences(read_tarrow(saved), theirs, generator)}
        ours = TapNet("unet-32")
        initialise_paper(ours, generator)
        scramble(ours, (8, 2, 32, 32), generator)
        write_tarrow(ours, written)
        there = TimeArrowNet.from_folder(written, from_state_dict=True)
        figures["ours_there"] = differences(ours, there, generator)
    emit("published_model", {"sizes": SIZES, **figures})
    worst = max(found[part] for found in figures.values() for part in ("features", "logits"))
    sys.exit(worst > TOLERANCE or min(found["spread"] for found in figures.values()) < 0.1)


if __name__ == "__main__":
    main()
