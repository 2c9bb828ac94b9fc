"""One rank of the demo's training: `python -m stepstream.demo.rank SECONDS`. Speaks JSON lines to its parent."""

import json
import os
import sys
import time

import numpy as np

import stepstream
from stepstream.demo.training import Network, spirals

STEPS_PER_SECOND = 250
"""Four ranks of 100 metrics at this pace log 100,000 points a second and leave a laptop usable."""
REPORT_EVERY_STEPS = 50
SAMPLED_CALLS = 4000


def main(seconds: float) -> int:
    """Train for `seconds`, log every step, and report."""
    rng = np.random.default_rng(1000 + int(os.environ["RANK"]))
    network = Network(rng=np.random.default_rng(7))
    run = stepstream.start_run(experiment="demo", params={"widths": network_shape(network), "optimizer": "adam"})
    # The training begins when the tracker's threads have loaded: their start is not what a step costs.
    run.flush(timeout=10)
    points = 0
    calls: list[int] = []
    metrics: dict[str, float] = {}
    began = time.perf_counter()
    step = 0
    while (elapsed := time.perf_counter() - began) < seconds:
        metrics = network.train(*spirals(rng, 128))
        before = time.perf_counter_ns()
        run.log(metrics, step=step)
        calls.append(time.perf_counter_ns() - before)
        points += len(metrics)
        step += 1
        if step % REPORT_EVERY_STEPS == 0:
            say(share=elapsed / seconds, points=points, loss=metrics["loss"])
        time.sleep(max(0.0, step / STEPS_PER_SECOND - (time.perf_counter() - began)))
    training_s = time.perf_counter() - began
    report = run.finish(timeout=60)
    sample = rng.choice(calls, size=min(len(calls), SAMPLED_CALLS), replace=False).tolist() if calls else []
    say(
        run_id=run.run_id,
        points=points,
        steps=step,
        training_s=training_s,
        loss=metrics.get("loss"),
        accuracy=metrics.get("accuracy"),
        delivered=report.delivered,
        points_dropped=run.stats.points_dropped,
        call_ns=sample,
    )
    return 0 if report.delivered else 1


def network_shape(network: Network) -> str:
    """The widths of the layers, as a param."""
    return "x".join(str(weight.shape[0]) for weight in network.weights) + "x1"


def say(**fields: object) -> None:
    """One line to the parent."""
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
