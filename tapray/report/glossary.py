"""What a page calls its arms, heads and scores."""

from __future__ import annotations

import pandas as pd

from tapray.config import HeadKind, Init
from tapray.report.further import table
from tapray.report.tables import ordered

ARMS = {
    Init.TAP: "encoder pretrained on the arrow of time, frozen",
    Init.RANDOM_DEFAULT: "the same net with random weights, frozen",
    Init.RANDOM_PAPER: "the same with random batch-norm scales, as published, frozen",
    Init.END_TO_END: "the same net from random weights, trained on the labels alone",
    Init.FINE_TUNE: "the pretrained encoder, trained on the labels too",
    Init.IMAGENET: "a ResNet-18 trained on photographs, frozen",
    Init.DIFFERENCE: "no net: the second frame minus the first",
}
HEADS = {
    HeadKind.LINEAR: "one linear layer on all features of a crop, as published",
    HeadKind.RESNET: "a small residual network on the features, as published",
    HeadKind.MLP: "one hidden layer on features averaged over a 4 x 4 grid",
    HeadKind.POOLED: "a linear layer on statistics of the features; the fewest weights",
}
_SCORES = (
    "- Average precision (AP): crops are ranked by their probability of an event, and AP is the precision "
    "averaged over the steps of recall; 1 is perfect, and the share of positive crops is chance.\n"
    "- F1: the harmonic mean of precision (the share of crops called an event that are one) and recall (the "
    "share of events that are called one), at the threshold of best F1 on validation.\n"
    "- Expected calibration error (ECE): the mean gap between predicted probability and share of events, "
    "over 15 bins of the probability; 0 is perfect."
)


def words(results: pd.DataFrame) -> str:
    """The arms and heads of a study, and three scores."""
    own = ordered(results)
    rows = [(f"init `{init}`", ARMS[Init(init)]) for init in dict.fromkeys(own["init"])]
    heads = dict.fromkeys(own["head"])
    rows += [(f"head `{head}`", HEADS[HeadKind(head)]) for head in HeadKind if head.value in heads]
    deaths = own["precision_2"].notna().any() if "precision_2" in own else False
    several = "\n\nAP and F1 are means of division and death." if deaths else ""
    return (
        f"## Arms, heads and scores\n\n{table(('name', 'what it is'), rows, left=True)}\n\n{_SCORES}{several}"
    )
