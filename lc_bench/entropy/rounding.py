"""How the sender quantises: to the integers about the mean, unless a prior has reasons for others."""

from __future__ import annotations

from torch import Tensor


class Rounding:
    """For priors, which have a `mean` (None: 0)."""

    mean: Tensor | None

    @property
    def width(self) -> Tensor | None:
        """Scale of each element, by which reconstruction offsets go; None where an element has not one."""
        return None

    def symbols(self, y: Tensor) -> Tensor:
        """Whole numbers away from the mean."""
        return y.round() if self.mean is None else (y - self.mean).round()

    def rounded(self, y: Tensor) -> Tensor:
        """What the sender makes of y; the gradient is that of y."""
        y_hat = self.symbols(y) if self.mean is None else self.symbols(y) + self.mean
        return y + (y_hat - y).detach() if y.requires_grad else y_hat
