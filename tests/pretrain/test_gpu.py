"""Training on a GPU does what training on the CPU does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tapray.model.sync_norm import synchronised
from tapray.model.tap import TapNet, initialise
from tapray.pretrain.batches import Batches
from tapray.pretrain.checkpoints import Checkpoints
from tapray.pretrain.loop import Team, run
from tapray.pretrain.trainer import Trainer, trained
from tests.pretrain.made import SIZE, config, noise, stream

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def batches(device: torch.device, **changes: object) -> Batches:
    return Batches(stream(noise()), config(**changes), device=device)


def test_crops_are_those_of_the_cpu() -> None:
    for step in range(3):
        assert torch.equal(batches(GPU).crops(0, step).cpu(), batches(CPU).crops(0, step))


@pytest.mark.parametrize("augment", ["light", "paper"])
def test_a_batch_is_a_function_of_seed_epoch_and_step(augment: str) -> None:
    one, again = (batches(GPU, augment=augment).train(0, 1) for _ in range(2))
    assert all(map(torch.equal, one, again))
    assert one[0].device.type == "cuda"


def test_steps_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    crops, first = batches(CPU, augment="none", batch=32).train(0, 0)
    losses = {}
    for device in (CPU, GPU):
        trainer = Trainer(config(batch=32), 0, 1, device)
        given = crops.to(device), first.to(device)
        losses[device.type] = [float(trainer.train_step(*given)[0]) for _ in range(5)]
    assert losses["cuda"][0] == pytest.approx(losses["cpu"][0], rel=1e-4)
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=0.05)  # Adam makes more of what rounding leaves


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bf16", "channels_last": True},
        {"precision": "fp16"},
        {"precision": "bf16", "compile": True},
        {"ema": 0.9, "clip_norm": 1.0, "accumulate": 2, "sync_batchnorm": True},
        {"preset": "resnet-fpn", "precision": "bf16"},
        {"preset": "convnext", "precision": "bf16"},
    ],
)
def test_a_run_ends_with_records_and_a_net(tmp_path: Path, options: dict[str, Any]) -> None:
    settings, log, saved = config(**options), tmp_path / "log.jsonl", Checkpoints(tmp_path, 2)
    run(Trainer(settings, 0, 1, GPU), batches(GPU, **options), batches(GPU, **options), saved, log, Team())
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert records[-1]["step"] == 6
    assert records[-1]["gpu_memory_gb"] > 0
    net = trained(saved.best().tensors(), settings.preset, 1).eval()
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())
    assert torch.isfinite(net(batches(CPU).crops(0, 0))[0]).all()


def test_it_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    """As far as a GPU repeats itself: some of its sums are in another order each time."""
    settings, ends = config(ema=0.9), []
    for stops in ([False], [True, False]):
        folder = tmp_path / str(len(stops))
        folder.mkdir()
        for stop in stops:
            given = batches(GPU), batches(GPU), Checkpoints(folder, 2), folder / "log.jsonl"
            run(Trainer(settings, 0, 1, GPU), *given, Team(stop=lambda stop=stop: stop))
            steps = [saved.step for saved in Checkpoints(folder, 2).all()]
            assert steps == ([3] if stop else [3, 6])
        ends.append([json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()])
    assert ends[1] == pytest.approx(ends[0], rel=0.1)


def test_synchronised_statistics_of_one_worker_are_its_own() -> None:
    nets = [TapNet("unet-8s2") for _ in range(2)]
    for net in nets:
        initialise(net, torch.Generator().manual_seed(0))
    synchronised(nets[1])
    crops = torch.rand(8, 2, SIZE, SIZE, device=GPU)
    logits = [net.to(GPU)(crops)[0] for net in nets]
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-4)
