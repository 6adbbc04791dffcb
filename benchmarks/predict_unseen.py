"""Does `tapray predict` find the events of a movie that no stage has seen?

    python benchmarks/predict_unseen.py runs/demo [--index 100]

Simulates a further field of view with the run's own settings, looks for events in it and
matches them to the truth: a predicted event is right if a true one lies within half a crop and
two frames; each true event is matched once, in order of probability. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import pandas as pd
import tifffile
import yaml
from sklearn.metrics import average_precision_score

from tapray.configfile import parse_config
from tapray.console import Reporter
from tapray.data.movies import open_movie
from tapray.data.simulate import simulate_movie
from tapray.detector import load_model
from tapray.predict import predict
from tapray.threshold import match

FRAMES = 1  # between the intervals of both, which are one frame long: two between their first frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--index", type=int, default=100, help="field of view, not among the run's own")
    args = parser.parse_args()
    config = parse_config(yaml.safe_load((args.run / "config.yaml").read_text()))
    if config.simulate is None or args.index < config.simulate.n_movies:
        raise SystemExit("the run must be of simulated movies, and the index beyond its own")
    movie = simulate_movie(config.simulate, args.index)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "unseen.tif"
        tifffile.imwrite(path, movie.frames, compression="zlib")
        start = time.perf_counter()
        model, unseen = load_model(args.run / "model"), open_movie(path, "unseen")
        table = predict(model, unseen, Path(folder), Reporter("quiet"))
        seconds = time.perf_counter() - start
        found = pd.read_csv(table).sort_values("probability", ascending=False)
    truth = movie.events[movie.events.t + config.crops.delta < len(movie.frames)]
    hit = match(found, truth, config.crops.size / 2, FRAMES)
    report = {
        "true_events": len(truth),
        "predicted_events": len(found),
        "recall": float(hit.sum() / len(truth)),
        "precision": float(hit.mean()) if len(found) else 0.0,
        "ap_of_predicted": float(average_precision_score(hit, found.probability)) if hit.any() else 0.0,
        "mean_probability": float(found.probability.mean()) if len(found) else 0.0,
        "frames": len(movie.frames),
        "seconds": round(seconds, 1),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
