"""Networks of the first papers: a perceptron, a convolutional network, a character model.

Parameters have PyTorch's names and layouts, (out, in, ...), on every engine, and its default initial
distributions; they are drawn here, so that all engines start alike.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass

from hanse.core import Array, InvalidInput, Key, Learner, Tensors, check_not_negative, value
from hanse.learners.engines import Engine, jax_engine, torch_engine
from hanse.learners.examples import Characters, Classes, Features, Labels, Numbers, Reals, Text
from hanse.learners.model import Model
from hanse.learners.settings import check_class_weights, check_dtype, check_num_weights, check_sizes

__all__ = ["Bound", "Network", "char_lstm", "cnn", "mlp"]


@dataclass(frozen=True)
class ParamInit:
    """The initial distribution of a parameter: uniform in ±1/√fan_in, or standard normal without a fan-in."""

    shape: tuple[int, ...]
    fan_in: int | None

    def draw(self, key: Key, dtype: str) -> Array:
        """Draws the initial values."""
        if self.fan_in is None:
            return key.rng().standard_normal(self.shape).astype(dtype)
        bound = 1 / math.sqrt(self.fan_in)
        return key.rng().uniform(-bound, bound, self.shape).astype(dtype)


@dataclass(frozen=True)
class Bound:
    """A network that knows its data, which is all that an engine needs.

    Args:
      network: its kind and settings.
      features: the requirement on rows of features.
      labels: the requirement on labels, and the loss.
    """

    network: "Network"
    features: Features
    labels: Labels

    @property
    def num_outputs(self) -> int:
        """Number of scores that the last layer gives: one a class or character, or one."""
        match self.labels:
            case Classes(num_classes=number) | Characters(num_characters=number):
                return number
            case _:
                return 1

    @property
    def drawn(self) -> Mapping[str, ParamInit]:
        """All parameters, by name."""
        return dict(self.network.drawn(self.features.shape, self.num_outputs))

    def init(self, key: Key) -> Tensors:
        """Draws initial parameters, alike on every engine."""
        dtype = self.network.dtype
        return {name: drawn.draw(key.fold_in(name), dtype) for name, drawn in self.drawn.items()}


class Network(Model):
    """A network before it knows its data. Subclasses are values with at least these fields.

        minimise  (1/n) Σ loss(network(x_i), y_i) + (l2/2) |W|²

    W are the parameters of two dimensions or more: biases are not regularised. The loss is cross-entropy
    for classes, times the weight of the true class, and half of the squared error for numbers. The objective
    stays a mean over examples, so clients' objectives add up to that of the pooled data; torch's
    `CrossEntropyLoss(weight=...)` divides each batch by the weights of its examples instead. The metric
    "loss" is weighted, too; the accuracy is not.
    """

    engine: Engine
    l2: float
    dtype: str
    class_weights: tuple[float, ...] | None

    def __post_init__(self) -> None:
        check_not_negative("l2", self.l2)
        check_dtype(self.dtype)
        object.__setattr__(self, "class_weights", check_class_weights(self.class_weights))

    def bind(self, feature_shape: tuple[int, ...], num_classes: int | None) -> Learner:
        """Binds the model to examples, on its engine."""
        return self.engine.learner(self, tuple(feature_shape), num_classes)

    def load(self) -> None:
        """Imports its engine."""
        self.engine.load(self)

    def bound(self, feature_shape: tuple[int, ...], num_classes: int | None) -> Bound:
        """Binds the network to examples, without an engine. Raises: InvalidInput: if they don't suit."""
        if math.prod(feature_shape) < 1:
            raise InvalidInput(f"features of shape {feature_shape}; give at least 1 feature a row")
        weights = check_num_weights(self.class_weights, num_classes)
        labels = Numbers() if num_classes is None else Classes(num_classes, weights)
        return Bound(self, Reals(feature_shape, self.dtype), labels)

    @abstractmethod
    def drawn(self, feature_shape: tuple[int, ...], num_outputs: int) -> Iterator[tuple[str, ParamInit]]:
        """Yields the parameters by name, in order."""

    @property
    @abstractmethod
    def rows_at_once(self) -> int:
        """Number of examples whose gradient is computed together; a larger batch is split into parts."""


def _layer(name: str, num_outputs: int, num_inputs: int, *kernel: int) -> Iterator[tuple[str, ParamInit]]:
    """Yields the weights and biases of a dense or convolutional layer."""
    fan_in = num_inputs * math.prod(kernel)
    yield f"{name}.weight", ParamInit((num_outputs, num_inputs, *kernel), fan_in)
    yield f"{name}.bias", ParamInit((num_outputs,), fan_in)


@value
class mlp(Network):
    """A multi-layer perceptron: dense layers with rectifiers between them. Features are flattened.

    The default is the "2NN" of McMahan et al.: 199,210 parameters for 28 x 28 pixels and ten classes.
    `mlp(())` is softmax regression, or least squares.

    >>> mlp((100,), l2=1e-4)
    mlp(hidden=(100,), engine=jax_engine(precision=full()), l2=0.0001, dtype='float32', class_weights=None)

    Args:
      hidden: the width of each hidden layer.
      engine: `jax_engine()` or `torch_engine()`.
      l2: strength of the regulariser.
      dtype: "float32" or "float64".
      class_weights: one number for each class, which multiplies the losses of its examples; None: all 1.
    Raises: InvalidInput: if a setting is out of range.
    References: McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-efficient learning of
      deep networks from decentralized data", AISTATS 2017, arXiv 1602.05629, section 3.
    """

    hidden: tuple[int, ...] = (200, 200)
    _: KW_ONLY
    engine: Engine = jax_engine()
    l2: float = 0.0
    dtype: str = "float32"
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes("mlp", **{f"hidden[{i}]": width for i, width in enumerate(self.hidden)})

    def drawn(self, feature_shape: tuple[int, ...], num_outputs: int) -> Iterator[tuple[str, ParamInit]]:
        """Yields hidden1, hidden2, ..., output."""
        width = math.prod(feature_shape)
        for i, wider in enumerate(self.hidden, start=1):
            yield from _layer(f"hidden{i}", wider, width)
            width = wider
        yield from _layer("output", num_outputs, width)

    @property
    def rows_at_once(self) -> int:
        return 2048


@value
class cnn(Network):
    """A convolutional network: twice a convolution, 2 x 2 max pooling and a rectifier; then a hidden layer.

    The default is that of McMahan et al.: 1,663,370 parameters for 28 x 28 pixels and ten classes. Images are
    (height, width) or (height, width, colours), or flat, row by row, if they are square and grey.

    >>> start = cnn().bound((28, 28), 10).init(Key.from_seed(0))
    >>> sum(tensor.size for tensor in start.values())
    1663370

    Args:
      channels: of the two convolutions.
      kernel: their width, odd; borders are padded with zeros.
      hidden: the width of the hidden layer.
      engine: `torch_engine()` or `jax_engine()`.
      l2: strength of the regulariser.
      dtype: "float32" or "float64".
      class_weights: one number for each class, which multiplies the losses of its examples; None: all 1.
    Raises: InvalidInput: if a setting is out of range.
    References: as `mlp`.
    """

    channels: tuple[int, int] = (32, 64)
    _: KW_ONLY
    kernel: int = 5
    hidden: int = 512
    engine: Engine = torch_engine()
    l2: float = 0.0
    dtype: str = "float32"
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes("cnn", kernel=self.kernel, hidden=self.hidden)
        check_sizes("cnn", **{f"channels[{i}]": number for i, number in enumerate(self.channels)})
        if self.kernel % 2 == 0:
            raise InvalidInput(
                f"cnn: kernel is {self.kernel}; write an odd number, such as {self.kernel + 1}"
            )

    def bound(self, feature_shape: tuple[int, ...], num_classes: int | None) -> Bound:
        """Binds the network to images, without an engine."""
        image_shape(feature_shape)
        return super().bound(feature_shape, num_classes)

    def drawn(self, feature_shape: tuple[int, ...], num_outputs: int) -> Iterator[tuple[str, ParamInit]]:
        """Yields conv1, conv2, hidden, output."""
        height, width, colours = image_shape(feature_shape)
        first, second = self.channels
        yield from _layer("conv1", first, colours, self.kernel, self.kernel)
        yield from _layer("conv2", second, first, self.kernel, self.kernel)
        yield from _layer("hidden", self.hidden, (height // 4) * (width // 4) * second)
        yield from _layer("output", num_outputs, self.hidden)

    @property
    def rows_at_once(self) -> int:
        return 128


def image_shape(feature_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Returns height, width and colours of images.

    >>> image_shape((28, 28)), image_shape((64,))
    ((28, 28, 1), (8, 8, 1))

    Raises: InvalidInput: if features of this shape are not images.
    """
    side = math.isqrt(math.prod(feature_shape))
    match feature_shape:
        case (height, width, colours):
            shape = (height, width, colours)
        case (height, width):
            shape = (height, width, 1)
        case (pixels,) if side * side == pixels:
            shape = (side, side, 1)
        case _:
            raise InvalidInput(
                f"cnn: features of shape {feature_shape} are not images; give (n, height, width) or "
                "(n, height, width, colours), or write mlp()"
            )
    if min(shape[:2]) < 4:
        raise InvalidInput(f"cnn: images of {shape[0]} x {shape[1]}; give at least 4 x 4, or write mlp()")
    return shape


@value
class char_lstm(Network):
    """A character model: an embedding, stacked LSTM layers, and scores of the next character.

    The default is that of McMahan et al. for Shakespeare's plays. Features are rows of characters, as
    integers: ASCII codes, or positions in a vocabulary. Labels are either rows of the same length, the
    next character at each position (the loss is their mean), or one class a row: the character after it.

    Args:
      num_characters: characters are numbered from 0 to this, exclusive.
      embedding: its width.
      hidden: the width of each LSTM layer.
      layers: number of LSTM layers.
      engine: `torch_engine()` or `jax_engine()`.
      l2: strength of the regulariser.
      dtype: "float32" or "float64".
      class_weights: one number for each class, which multiplies the losses of its examples; None: all 1.
    Raises: InvalidInput: if a setting is out of range.
    References: as `mlp`. Kim, Jernite, Sontag, Rush, "Character-aware neural language models", AAAI 2016.
    """

    num_characters: int = 128
    _: KW_ONLY
    embedding: int = 8
    hidden: int = 256
    layers: int = 2
    engine: Engine = torch_engine()
    l2: float = 0.0
    dtype: str = "float32"
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = ("num_characters", "embedding", "hidden", "layers")
        check_sizes("char_lstm", **{name: getattr(self, name) for name in sizes})

    def bound(self, feature_shape: tuple[int, ...], num_classes: int | None) -> Bound:
        """Binds the network to rows of characters, without an engine."""
        if len(feature_shape) != 1 or feature_shape[0] < 1:
            raise InvalidInput(
                f"char_lstm: features of shape {feature_shape}; give rows of characters, (n, length) integers"
            )
        text = Text(feature_shape, self.num_characters)
        weights = check_num_weights(self.class_weights, num_classes)
        if num_classes is None:
            return Bound(self, text, Characters(feature_shape[0], self.num_characters))
        return Bound(self, text, Classes(num_classes, weights))

    def drawn(self, feature_shape: tuple[int, ...], num_outputs: int) -> Iterator[tuple[str, ParamInit]]:
        """Yields embedding, the layers of lstm, output."""
        yield "embedding.weight", ParamInit((self.num_characters, self.embedding), None)
        width = self.embedding
        for i in range(self.layers):
            yield f"lstm.weight_ih_l{i}", ParamInit((4 * self.hidden, width), self.hidden)
            yield f"lstm.weight_hh_l{i}", ParamInit((4 * self.hidden, self.hidden), self.hidden)
            yield f"lstm.bias_ih_l{i}", ParamInit((4 * self.hidden,), self.hidden)
            yield f"lstm.bias_hh_l{i}", ParamInit((4 * self.hidden,), self.hidden)
            width = self.hidden
        yield from _layer("output", num_outputs, self.hidden)

    @property
    def rows_at_once(self) -> int:
        return 64
