"""Residuals of biased compression: added to the next message as error feedback, or dropped."""

from abc import ABC, abstractmethod
from dataclasses import replace

from hanse.core import (
    CompositionError,
    Keys,
    Memory,
    Part,
    Plan,
    Spec,
    Stage,
    Transform,
    add,
    subtract,
    value,
)
from hanse.transforms.draws import Redrawn

__all__ = ["Residual", "error_feedback", "none"]


class Residual(ABC):
    """A client's treatment of what a stage left out: error feedback, or none."""

    @abstractmethod
    def around(self, transform: Transform, before: Spec, stage: Stage) -> Stage:
        """Returns the stage with this treatment.

        Raises: CompositionError: if the stage can't have it.
        """


@value
class none(Residual):
    """No error feedback: what was left out is lost."""

    def around(self, transform: Transform, before: Spec, stage: Stage) -> Stage:
        return stage


@value
class error_feedback(Residual):
    """Error feedback: the client adds what was left out to its next message.

        p_t = x_t + e_t;   sent_t = C(p_t);   e_(t+1) = p_t - sent_t

    So the messages sent and the residual add up to all of the x: sum sent + e = sum x. The residual is as
    large as the full message; the client keeps it in its memory once the message was counted.

    References: Stich, Cordonnier, Jaggi, "Sparsified SGD with memory", NeurIPS 2018, arXiv 1809.07599;
      Karimireddy, Rebjock, Stich, Jaggi, "Error feedback fixes SignSGD and other gradient compression
      schemes", ICML 2019, arXiv 1901.09847.
    """

    def around(self, transform: Transform, before: Spec, stage: Stage) -> Stage:
        if isinstance(before, Redrawn):
            raise CompositionError(
                f"{transform} remembers by position what it left out, but a transform before it gives the "
                "positions another meaning in each round: put it first, or write residual=none()"
            )
        compress, restore = stage.encode, stage.open
        assert compress is not None
        assert restore is not None

        def encode(plan: Plan, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
            owed = memory.get("residual")
            if owed is not None:
                part = replace(part, values=add(part.values, owed))
            sent, _ = compress(plan, part, {}, keys)
            restored = restore(plan, sent, keys.public)
            return sent, {"residual": subtract(part.values, restored.values)}

        return replace(stage, encode=encode, encode_many=None)
