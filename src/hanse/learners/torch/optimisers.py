"""The rules of local steps as PyTorch's own optimisers."""

from collections.abc import Mapping
from typing import Any

import torch

from hanse.core import InvalidInput, Steps, Tensors, adam_rule, adamw_rule, nesterov_rule, sgd_rule
from hanse.learners.torch.losses import Tensor

__all__ = ["make_optimiser"]


def make_optimiser(trained: Mapping[str, Tensor], steps: Steps, params: Tensors) -> torch.optim.Optimizer:
    """Makes the optimiser of these steps for a module's parameters."""
    rates = steps.lr_of(params)
    groups: list[dict[str, Any]] = [{"params": [w], "lr": rates[name]} for name, w in trained.items()]
    if len(set(rates.values())) == 1:
        groups = [{"params": list(trained.values()), "lr": groups[0]["lr"]}]
    match steps.rule:
        case adam_rule(beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay) as rule:
            kind = torch.optim.AdamW if isinstance(rule, adamw_rule) else torch.optim.Adam
            return kind(groups, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, foreach=True)
        case sgd_rule(momentum=momentum, weight_decay=weight_decay) as rule:
            return torch.optim.SGD(
                groups,
                momentum=momentum,
                weight_decay=weight_decay,
                nesterov=isinstance(rule, nesterov_rule),
                foreach=True,
            )
    raise InvalidInput(f"{steps.rule} is not known to PyTorch's engine; use sgd(), adam() or adamw()")
