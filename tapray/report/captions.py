"""What stands below each picture of a page: what is drawn, and what its colours and marks mean."""

from __future__ import annotations

from tapray.insight.maps import MOST

PARTS = {"train": "seen in pretraining", "test": "test part"}  # of the data, where attribution is looked at
_LOOK = (
    "A frame pair, the first frame under attribution (brighter: more). Orange boxes: the regions that stand "
    "out, below by number; integrated gradients and occlusion are summed over both frames, red for the right "
    "order and blue against it. The squares in a row of evidence or of Grad-CAM share one scale; of "
    "integrated gradients and occlusion each square has its own, so that their colours tell where, and not "
    "in which square there is more. Dashed circles: annotated events."
)
_CAPTIONS = {  # by how the names of files begin
    "label_budget": (
        "Average precision against the label budget, a panel for each head. Colour, marker and line tell the "
        "arms apart; bars: 95 % over seeds and test set; thin grey line: chance."
    ),
    "fronts": (
        "Search trials of each budget by ECE and average precision on validation; right, the final runs by "
        "budget and average precision on test. Colours and markers: arms; black rings: what nothing beats."
    ),
    "reliability": (
        "Share of events against predicted probability, before (left) and after calibration (right). Where "
        "blue points lie on the grey diagonal, probabilities are right; bars: 95 % over blocks of the test "
        "set; light blue: crops per seed in each bin."
    ),
    "over_time": (
        "Shares by frame. Left: false positives (orange), true positives (blue), all positives (grey bars); "
        "right: false negatives (red), true negatives (light blue), all negatives (grey bars)."
    ),
    "surroundings": (
        "Error rates by what is near a crop. Orange: false positives among negatives; red: misses among "
        "positives, in panels of their own; bars: 95 %."
    ),
    "mistakes": (
        "A mistake a row: frames t and t + delta, then frame t under each attribution (brighter: more, each "
        "picture on its own scale). p: probability of an event, or of the kind it is called where the kind "
        "is wrong. Orange box: the crop that was judged; dashed circles: annotated events; blue lines: "
        "masks of cells or events, in movies that have them."
    ),
    "arrow": (
        "Arrow accuracy of training crops (orange) and of validation crops (blue) while the net learns; grey "
        "line: 0.5, no arrow."
    ),
    "evidence": _LOOK,
    "grad_cam": _LOOK,
    "attribution": (
        "Evidence over a stretch of the test part, in colour over the frames (brighter: more). Where the "
        "test part is the same frames that pretraining has seen, over a stretch of these."
    ),
    "features": (
        "A frame and the first three principal components of its dense features, as red, green and blue: "
        "like colours are like features."
    ),
    "crop_map": (
        "Each point is a test crop, near those of like features (UMAP); of more than "
        f"{MOST:,} crops so many, drawn at random. Left coloured by class; right by frames since the event, "
        "blue before it and red after it, grey where none is near."
    ),
}


def picture(alt: str, file: str) -> str:
    """A picture in Markdown, with its caption as title."""
    caption = next(text for name, text in _CAPTIONS.items() if file.startswith(name))
    return f'![{alt}]({file} "{caption}")'
