import os
import time

from darts_core import autosearch


def train():
    x = autosearch.config["x"]
    steps = int(autosearch.config.get("steps", 2))
    for _ in range(steps):
        autosearch.reporter(accuracy=1 - (x - 0.3) ** 2)
        time.sleep(0.02)
    print("trained with", x)
    with open(os.path.join(autosearch.output_dir, "m.bin"), "w", encoding="utf-8") as stream:
        stream.write(str(x))
    autosearch.report(
        1 - (x - 0.3) ** 2, latency=10 * x, model_path="m.bin", additional_data={"params": 3}
    )
