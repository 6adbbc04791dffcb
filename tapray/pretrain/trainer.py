"""One training step of time arrow prediction, and all that a step changes, in plain PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tapray.config import PretrainConfig
from tapray.model.losses import tap_loss
from tapray.model.sync_norm import synchronised
from tapray.model.tap import TapNet, initialise
from tapray.model.weights import under
from tapray.pretrain.optim import make_optimizer

# Environment of processes that train on a CPU. glibc gives what a step frees back to the system, and the next
# step takes it again, page by page; kept, a step takes a tenth less, and of large batches less still.
# One arena: the net trains in a thread, whose own would be cut in pieces.
MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """Net, optimiser, schedule and averaged weights; saved and restored as tensors.

    Args:
        seed: of the initial weights.
        channels: of a frame.
        wrap: makes the net train together with those of the other workers.
        world: how many workers there are. What they learn from a step is the mean over the crops of all,
            also where their shares are not alike.
    """

    def __init__(
        self,
        config: PretrainConfig,
        seed: int,
        channels: int = 1,
        device: torch.device | None = None,
        wrap: Callable[[nn.Module], nn.Module] = lambda net: net,
        world: int = 1,
    ) -> None:
        self.config, self.device, self._world = config, device or torch.device("cpu"), world
        self.step = 0  # steps done
        self.net = TapNet(config.preset, channels)
        initialise(self.net, torch.Generator().manual_seed(seed))
        if config.sync_batchnorm:
            synchronised(self.net)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.net.to(device=self.device, memory_format=layout)  # type: ignore[call-overload]
        if config.compile:
            self.net.compile(dynamic=False)  # batches have one shape; nets for any take minutes to make
        self.optimizer, self.scheduler = make_optimizer(self.net, config)
        self.ema: AveragedModel | None = None
        if config.ema:
            average = get_ema_multi_avg_fn(config.ema)  # type: ignore[no-untyped-call]
            self.ema = AveragedModel(self.net, multi_avg_fn=average)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.model = wrap(self.net)
        if self.model is not self.net and not config.compile:  # which would be for crops of one more shape
            self._settle()

    @property
    def result(self) -> nn.Module:
        """The net that is validated: the one with averaged weights where there is one."""
        return self.ema.module if self.ema else self.net

    def train_step(self, crops: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """One optimiser step; returns loss and arrow accuracy of this worker's share, on its device."""
        split = (tensor.tensor_split(self.config.accumulate) for tensor in (crops, first))
        parts = list(zip(*split, strict=True))  # as many on every worker
        mine = len(crops) * self._world / self.config.batch if self._world > 1 else 1.0
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(2, device=self.device)
        for number, (some, target) in enumerate(parts):
            share = len(some) / len(crops)
            with self._together(last=number + 1 == len(parts)):
                with self._autocast():
                    logits, features = self.model(some)
                    loss, arrow = tap_loss(logits, features, target, self.config.decorrelation)
                self.scaler.scale(loss * (share * mine)).backward()  # type: ignore[no-untyped-call]
            sums += torch.stack([loss.detach(), arrow]) * share
        if self.config.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        if self.ema:
            self.ema.update_parameters(self.net)
        self.step += 1
        return sums[0], sums[1]

    def _settle(self) -> None:
        """Lets DDP lay out the gradients before the first step, as it does once it has seen a backward pass.

        Where they lie decides in which order those of three workers or more are summed: a step after a
        restart would be summed in another order than without.
        """
        config, like = self.config, next(self.net.parameters())
        shape = (2, config.frames, *([self.net.channels] if self.net.channels > 1 else []))
        crops = torch.zeros(*shape, config.size, config.size, dtype=like.dtype, device=self.device)
        self.model.eval()  # statistics of batch norm stay as they are
        with self._autocast():
            logits, features = self.model(crops)
            target = torch.zeros(2, dtype=torch.long, device=self.device)
            loss, _ = tap_loss(logits, features, target, config.decorrelation)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.zero_grad(set_to_none=True)
        self.model.train()

    def _together(self, *, last: bool) -> Any:
        """Gradients are averaged over the workers once a step, at its last part."""
        alone = getattr(self.model, "no_sync", None)
        return nullcontext() if last or alone is None else alone()

    def _autocast(self) -> torch.autocast:
        dtype = DTYPES[self.config.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype is not torch.float32)

    def tensors(self) -> dict[str, Tensor]:
        """All that is needed to go on: weights, optimiser moments, averaged weights, loss scale.

        The schedule is a function of the step, and so is the order of the crops: nothing of them is saved.
        """
        found = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            found |= {f"optim.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
        if self.ema:
            found |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        return found | {f"scaler.{k}": torch.tensor(v) for k, v in self.scaler.state_dict().items()}

    def restore(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Puts `tensors` of `step` steps back in place."""
        self.net.load_state_dict(under("net", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in under("optim", tensors).items():
            number, name = key.split(".", 1)
            moments.setdefault(int(number), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        if self.ema:
            self.ema.load_state_dict(under("ema", tensors))
        if scale := under("scaler", tensors):
            self.scaler.load_state_dict({name: value.item() for name, value in scale.items()})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a schedule that goes ahead of its optimiser
            for _ in range(step):
                self.scheduler.step()
        self.step = step


def trained(tensors: Mapping[str, Tensor], preset: str, channels: int) -> TapNet:
    """The net of a checkpoint, with averaged weights where it holds any."""
    net = TapNet(preset, channels)
    net.load_state_dict(under("ema.module", tensors) or under("net", tensors))
    return net
