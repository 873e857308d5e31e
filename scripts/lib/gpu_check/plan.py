"""How much is measured: on a GPU, and in a rehearsal on the CPU."""

import dataclasses

BATCHES = [1, 32]
MODELS = ["w2", "resnet50"]
TITLES = {"w2": "W2-like", "resnet50": "ResNet-50"}


@dataclasses.dataclass
class Plan:
    device: str
    gpu: int = 0
    # Images are 3 x side x side.
    side: int = 224
    rounds: int = 5
    # Of one measurement in a round.
    seconds: float = 1.5
    # In flight at a time, for throughput.
    connections: int = 8
    unloads: int = 5
    # Of one neighbour's connection: from a request to the next, and how long it is watched.
    pace: float = 0.005
    calm: float = 4.0
    # For the model that is told to hang.
    infer_timeout: float = 4.0
    # For a worker to be back after a fault.
    back_limit: float = 40.0
    # Budgets in seconds; together within the eight minutes.
    budgets: dict = dataclasses.field(
        default_factory=lambda: {
            "correctness": 90, "transfers": 30, "throughput": 150, "unload": 70, "faults": 150, "zygote": 40,
        }
    )  # fmt: skip

    @property
    def on_gpu(self):
        return self.device == "cuda"

    def input(self, batch):
        """As closed_load takes it."""
        return f"x=FP32:{batch}x3x{self.side}x{self.side}"

    def image_bytes(self, batch):
        return batch * 3 * self.side * self.side * 4


def of(device, gpu):
    if device == "cuda":
        return Plan("cuda", gpu)
    # Small: every line of the script is run, and no figure of it means anything.
    return Plan(
        "cpu", side=32, rounds=1, seconds=0.3, connections=2, unloads=2, pace=0.02, calm=0.7, infer_timeout=1.0
    )
