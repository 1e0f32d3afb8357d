"""Models bound to examples, as learners on PyTorch."""

from torch import nn

from hanse.core import InvalidInput, Key, Tensors
from hanse.learners.engines import full, torch_engine
from hanse.learners.examples import Anything, Classes, Labels, Numbers, Reals
from hanse.learners.memory import keep_freed_memory
from hanse.learners.networks import Network
from hanse.learners.own import averaged_buffers, torch_module
from hanse.learners.torch.arithmetic import draw_from
from hanse.learners.torch.learner import TorchLearner
from hanse.learners.torch.losses import LOSSES, BatchLoss, Checked, make_loss
from hanse.learners.torch.networks import network_module
from hanse.learners.torch.own_losses import fit_loss
from hanse.learners.torch.workbench import Workbench

__all__ = ["bind_network", "bind_own"]


def bind_network(network: Network, feature_shape: tuple[int, ...], num_classes: int | None) -> TorchLearner:
    """Binds a ready network to examples."""
    keep_freed_memory()
    bound = network.bound(feature_shape, num_classes)

    def make() -> Workbench:
        with draw_from(Key.from_seed(0)):
            return Workbench(network_module(bound), sends_buffers=False)

    loss = BatchLoss(make_loss(bound.labels), bound.labels)
    precision = network.engine.precision if isinstance(network.engine, torch_engine) else full()
    return TorchLearner(make(), make, bound.init, bound.features, loss, network.l2, precision)


def bind_own(model: torch_module, feature_shape: tuple[int, ...], num_classes: int | None) -> TorchLearner:
    """Binds a user's own module to examples."""
    keep_freed_memory()
    sends_buffers = isinstance(model.buffers, averaged_buffers)

    def made(key: Key) -> Workbench:
        with draw_from(key):
            module = model.factory()
        if not isinstance(module, nn.Module):
            raise InvalidInput(
                f"the factory gave {module!r}; give the class of your module, or a function that returns one"
            )
        return Workbench(module, sends_buffers)

    def start(key: Key) -> Tensors:
        drawn = made(key)
        return drawn.read(tuple(drawn.to_device))

    bench = made(Key.from_seed(0))
    labels: Labels = Numbers() if num_classes is None else Classes(num_classes)
    if model.loss is not None:
        loss = fit_loss(model.loss, labels if num_classes is not None else Anything())
    else:
        outputs = () if num_classes is None else (num_classes,)
        loss = BatchLoss(Checked(LOSSES[type(labels)][0], outputs), labels)
    features = Reals(feature_shape, bench.dtype, keep_integers=bench.embeds)
    return TorchLearner(
        bench,
        lambda: made(Key.from_seed(0)),
        start,
        features,
        loss,
        model.l2,
        model.precision,
        is_own=True,
    )
