"""A small network that really learns: two interleaved spirals, three layers, plain NumPy."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

WIDTHS = (2, 48, 48, 48, 1)
STATISTICS = ("mean", "std", "min", "max", "norm")
TENSORS = ("weight", "bias", "weight_grad", "bias_grad", "activation")


def spirals(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Points of shape (count, 2) and their labels of shape (count, 1): 0 or 1."""
    label = rng.integers(0, 2, size=(count, 1)).astype(np.float64)
    turn = rng.uniform(0.15, 1.0, size=(count, 1))
    angle = turn * 3 * np.pi + label * np.pi
    points = turn * np.hstack([np.cos(angle), np.sin(angle)]) + rng.normal(0, 0.015, size=(count, 2))
    return points, label


@dataclass(slots=True)
class Network:
    """A multilayer perceptron with tanh units, trained by Adam (Kingma and Ba, 2015)."""

    rng: np.random.Generator
    learning_rate: float = 3e-3
    weights: list[Array] = field(default_factory=list)
    biases: list[Array] = field(default_factory=list)
    moments: list[tuple[Array, Array]] = field(default_factory=list)
    steps: int = 0

    def __post_init__(self) -> None:
        for fan_in, fan_out in itertools.pairwise(WIDTHS):
            self.weights.append(self.rng.normal(0, np.sqrt(1 / fan_in), size=(fan_in, fan_out)))
            self.biases.append(np.zeros(fan_out))
        self.moments = [(np.zeros_like(p), np.zeros_like(p)) for p in (*self.weights, *self.biases)]

    def train(self, points: Array, label: Array) -> dict[str, float]:
        """One step on a batch; the metrics of the step, five statistics of five tensors of every layer among them."""
        activations = [points]
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = activations[-1] @ weight + bias
            activations.append(z if layer == len(self.weights) - 1 else np.tanh(z))
        probability = 1 / (1 + np.exp(-activations[-1]))
        loss = -np.mean(label * np.log(probability + 1e-9) + (1 - label) * np.log(1 - probability + 1e-9))
        accuracy = np.mean((probability > 0.5) == label)
        weight_grads, bias_grads = self._gradients(activations, (probability - label) / len(label))
        self._adam([*weight_grads, *bias_grads])
        metrics = {"loss": float(loss), "accuracy": float(accuracy), "learning_rate": self.learning_rate}
        for layer in range(len(self.weights)):
            tensors = (
                self.weights[layer],
                self.biases[layer],
                weight_grads[layer],
                bias_grads[layer],
                activations[layer + 1],
            )
            for name, tensor in zip(TENSORS, tensors, strict=True):
                values = (tensor.mean(), tensor.std(), tensor.min(), tensor.max(), np.sqrt(np.vdot(tensor, tensor)))
                for statistic, value in zip(STATISTICS, values, strict=True):
                    metrics[f"layer{layer}/{name}/{statistic}"] = float(value)
        return metrics

    def _gradients(self, activations: list[Array], error: Array) -> tuple[list[Array], list[Array]]:
        weight_grads: list[Array] = []
        bias_grads: list[Array] = []
        for layer in reversed(range(len(self.weights))):
            weight_grads.insert(0, activations[layer].T @ error)
            bias_grads.insert(0, error.sum(axis=0))
            if layer:
                error = (error @ self.weights[layer].T) * (1 - activations[layer] ** 2)
        return weight_grads, bias_grads

    def _adam(self, gradients: list[Array]) -> None:
        self.steps += 1
        scale = self.learning_rate * np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        for parameter, (first, second), gradient in zip(
            (*self.weights, *self.biases), self.moments, gradients, strict=True
        ):
            first += 0.1 * (gradient - first)
            second += 0.001 * (gradient**2 - second)
            parameter -= scale * first / (np.sqrt(second) + 1e-8)
