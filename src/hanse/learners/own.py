"""Users' own models: plain functions on JAX, or a PyTorch module, unchanged.

They hold functions, so they are chosen in a program, not in a settings file. To save and resume a run,
its model needs a name: mark a class of your own with `@value`, and let its `bind` return
`torch_module(...).bind(feature_shape, num_classes)`.
"""

import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

from hanse.core import InvalidInput, Learner, check_not_negative, value
from hanse.learners.engines import Precision, full, load_engine
from hanse.learners.model import Model
from hanse.learners.settings import check_dtype

__all__ = ["Buffers", "averaged_buffers", "jax_model", "local_buffers", "torch_module"]


@dataclass(frozen=True)
class jax_model(Model):
    """A model as pure functions of JAX.

        def init(key):
            return {"w": 0.01 * jax.random.normal(key, (64, 10)), "b": jnp.zeros(10)}

        def apply(params, x):
            return x @ params["w"] + params["b"]

        model = jax_model(init, apply)

    Each example has to be treated by itself: batches are padded, and their padding counts nothing.
    Parameters are sent under the path to them, such as "encoder.0.w".

    Args:
      init: from a key of JAX to parameters: arrays in dictionaries, lists and the like.
      apply: from parameters and features (n, ...) to scores: (n, k) for k classes, (n,) for numbers.
      loss: from scores and labels to (n,) losses. By default cross-entropy for classes, and half of the
        squared error for numbers. With classes, `predict` takes the scores for logits, as cross-entropy
        does, or one score for the logit of class 1. To weigh classes, multiply the losses by weights[labels].
      train: as `apply`, with a key of JAX as third argument, where training differs (dropout).
      l2: strength of a regulariser of the parameters of two dimensions or more.
      dtype: of the parameters and the arithmetic, "float32" or "float64".
      precision: of local training, `full()`, `tf32()` or `bfloat16()`.
    Raises: InvalidInput: if a setting is out of range; when bound, if JAX is not installed.
    """

    init: Callable[[Any], Any]
    apply: Callable[[Any, Any], Any]
    _: KW_ONLY
    loss: Callable[[Any, Any], Any] | None = None
    train: Callable[[Any, Any, Any], Any] | None = None
    l2: float = 0.0
    dtype: str = "float32"
    precision: Precision = full()

    def __post_init__(self) -> None:
        check_not_negative("l2", self.l2)
        check_dtype(self.dtype)

    def bind(self, feature_shape: tuple[int, ...], num_classes: int | None) -> Learner:
        """Binds the model to examples of this shape and these classes."""
        learner: Learner = self.load().bind_own(self, tuple(feature_shape), num_classes)
        return learner

    def load(self) -> Any:
        """Imports JAX and our module for it."""
        return load_engine("jax", "jax_model()")


class Buffers:
    """The treatment of a module's buffers: tensors that are kept but not trained."""


@value
class averaged_buffers(Buffers):
    """Buffers that are sent and averaged like parameters, as implementations of FedAvg do.

    So the running statistics of batch normalisation become the mean of the clients' own.
    """


@value
class local_buffers(Buffers):
    """Buffers that are never sent. Running statistics come from the examples of the party that measures.

    This suits clients whose features differ in scale; their statistics stay private. Predictions of a row
    then depend on the rows that are predicted together with it.

    References: Andreux, du Terrail, Beguier, Tramel, "Siloed federated learning for multi-centric
      histopathology datasets", DART 2020, arXiv 2008.07424.
    """


@dataclass(frozen=True)
class torch_module(Model):
    """A PyTorch module, unchanged.

        class Net(nn.Module): ...

        model = torch_module(Net)
        model = torch_module(lambda: Net(width=32), loss=nn.CrossEntropyLoss(label_smoothing=0.1))

    Parameters that require gradients are sent, under PyTorch's own names; frozen parameters have to be
    equal wherever the module is made. Buffers of integers (the number of batches that batch normalisation
    saw) are never sent.

    Buffers that begin with values that are not finite, such as a causal mask, are constants and not sent.
    Each client begins with all other buffers as they were made. State in other attributes, which clients
    would inherit from each other, is refused.

    Local training runs in training mode, with dropout drawn from the client's key. Losses, gradients and
    Hessians are those of evaluation mode. A batch of one example is normalised by running statistics,
    since it has none of its own.

    Features of real numbers come in the dtype of the parameters, and so do integers, unless the module has
    an embedding.

    Args:
      factory: makes the module; its initial values are drawn from the run's key.
      loss: from scores and labels to their mean loss over the batch. By default cross-entropy for classes,
        and half of the squared error for numbers. With classes, `predict` takes the scores for logits, as
        `nn.CrossEntropyLoss` does, or one score for the logit of class 1, as `nn.BCEWithLogitsLoss` does.
        To weigh classes, return the mean of weights[labels] times the losses.
        `nn.CrossEntropyLoss(weight=weights)` divides each batch by its weights instead, so that clients'
        objectives do not add up to that of the pooled data. PyTorch's losses are given labels in the form
        that they take, and targets that they ignore (`ignore_index`) count in no metric. If the module
        returns several outputs, your own loss is given all, and the first are the scores.
      buffers: `averaged_buffers()` or `local_buffers()`.
      l2: strength of a regulariser of the parameters of two dimensions or more.
      precision: of local training, `full()`, `tf32()` or `bfloat16()`.
    Raises: InvalidInput: if l2 is negative; when bound, if PyTorch is not installed.
    """

    factory: Callable[[], Any]
    _: KW_ONLY
    loss: Callable[[Any, Any], Any] | None = None
    buffers: Buffers = averaged_buffers()
    l2: float = 0.0
    precision: Precision = full()

    def __post_init__(self) -> None:
        check_not_negative("l2", self.l2)
        check_factory(self.factory)
        if isinstance(self.loss, type):
            name = self.loss.__name__
            raise InvalidInput(f"loss is the class {name}; write loss=nn.{name}(), or a function")

    def bind(self, feature_shape: tuple[int, ...], num_classes: int | None) -> Learner:
        """Binds the model to examples of this shape and these classes."""
        learner: Learner = self.load().bind_own(self, tuple(feature_shape), num_classes)
        return learner

    def load(self) -> Any:
        """Imports PyTorch and our module for it."""
        return load_engine("torch", "torch_module()")


def check_factory(factory: Any) -> None:
    """Checks that a factory makes modules when it is called. Raises: InvalidInput: if it can't."""
    if is_torch_module(factory):
        kind = type(factory).__name__
        raise InvalidInput(
            f"the factory is a module, {kind}(...); give a function that makes one, since each process "
            f"trains one of its own: torch_module(lambda: {kind}(...))"
        )
    if not callable(factory):
        raise InvalidInput(
            f"the factory is {factory!r}; give the class of your module, or a function that returns one"
        )
    try:
        takes = inspect.signature(factory)
    except ValueError:  # it is built in, and does not say
        return
    try:
        takes.bind()
    except TypeError as error:
        name = getattr(factory, "__name__", "the factory")
        raise InvalidInput(
            f"the factory {name} is called without arguments, and that fails: {error}; write "
            f"torch_module(lambda: {name}(...))"
        ) from None


def is_torch_module(obj: Any) -> bool:
    """Returns whether an object is a module of PyTorch, without importing it."""
    return any(
        cls.__module__.startswith("torch.nn.") and cls.__name__ == "Module" for cls in type(obj).__mro__
    )
