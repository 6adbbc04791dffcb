"""What the features of a study are made by: every frozen encoder and layer, with a hash of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tapray.config import Init, JobConfig, Layer
from tapray.model.dense import frame_features
from tapray.model.encoders import build_encoder, difference
from tapray.model.imagenet import ImageNet
from tapray.model.tap import TapNet, freeze
from tapray.model.weights import weights_digest
from tapray.runfolder import content_hash
from tapray.study.store import PIXELS, features_name, frozen_encoders, layers


@dataclass(frozen=True)
class Encoder:
    """A frozen map of crop pairs (B, 2, H, W) or (B, 2, C, H, W), float32, normalised.

    encode: -> (B, 2, c, h, w); digest: of all that it follows from; net and layer: where frames are embedded
    whole and crops cut from their features; after and follow: the name of another whose features, where they
    are made anyway, become these ones.
    """

    encode: Callable[[Tensor], Tensor]
    digest: str
    net: TapNet | None = None
    layer: Layer = Layer.PROJECTION
    after: str = ""
    follow: Callable[[Tensor], Tensor] = lambda features: features

    def shape(self, size: int, channels: int) -> tuple[int, ...]:
        """Of what a crop pair of that size becomes."""
        frame = (channels, size, size) if channels > 1 else (size, size)
        with torch.no_grad():
            return tuple(self.encode(torch.zeros(1, 2, *frame)).shape[1:])

    def frame(self, frame: Tensor) -> Tensor:
        """Features (c, h, w) of a whole frame (H, W) or (C, H, W), float16."""
        assert self.net is not None
        return frame_features(self.net, frame, self.layer).half()


def encoders(config: JobConfig, model: Path) -> dict[str, Encoder]:
    """Those that a study needs, by the names of their features; of trained arms the crops themselves."""
    found: dict[str, Encoder] = {}
    for init, draw in frozen_encoders(config):
        if init.is_tap:
            net = build_encoder(init, draw, config.pretrain.preset, config.channels, model)
            freeze(net)
            digest = [net.preset, weights_digest(net)]
            framed = net if config.crops.features == "frame" else None
            for layer in layers(config.study):
                encode = partial(net.features, layer=layer)
                own = content_hash([*digest, layer, config.crops.features])
                after = features_name(init, draw, Layer.BACKBONE) if layer is Layer.PROJECTION else ""
                name = features_name(init, draw, layer)
                found[name] = Encoder(encode, own, framed, layer, after, net.project)
        else:
            found[features_name(init, draw, Layer.PROJECTION)] = _baseline(config, init)
    if not all(init.frozen for init in config.study.inits):
        found[PIXELS] = Encoder(lambda pairs: pairs, content_hash(PIXELS))
    return found


def embedded(made: Mapping[str, Encoder], pairs: Tensor, size: int = 256) -> dict[str, Tensor]:
    """Features of crop pairs by encoder, float16; what follows from another's features is made from them."""
    order = sorted(made, key=lambda name: made[name].after in made)
    parts: dict[str, list[Tensor]] = {name: [] for name in order}
    with torch.no_grad():
        for start in range(0, len(pairs), size):
            some, seen = pairs[start : start + size], dict[str, Tensor]()
            for name in order:
                one = made[name]
                base = seen.get(one.after)
                seen[name] = one.encode(some.float()) if base is None else one.follow(base)
                parts[name].append(seen[name].half())
    return {name: torch.cat(own) for name, own in parts.items()}


def _baseline(config: JobConfig, init: Init) -> Encoder:
    if init is Init.DIFFERENCE:
        return Encoder(difference, content_hash(init))
    assert config.study.imagenet is not None
    net = ImageNet(config.study.imagenet)
    return Encoder(net, weights_digest(net))
