"""The catalogue of initializers, ours and Keras' own, as data."""

from __future__ import annotations

from typing import NamedTuple

import keras


class Entry(NamedTuple):
    """One initializer: its class name, formula, purpose, paper, package and the (first) paper's address."""

    name: str
    formula: str
    purpose: str
    paper: str
    origin: str
    link: str


_OURS = (
    ("ActivationScaling", "Var W = gain(f)^2 / fan", "a kernel before any activation", "He et al. 2015"),
    ("StandardUniform", "U(+-1/sqrt(fan_in))", "PyTorch's default; a baseline", "Glorot and Bengio 2010, eq. 1"),
    (
        "RandomWalk",
        "N(0, g^2/fan_in), g = exp(1/(2 fan_in)) if linear",
        "hundreds of narrow layers",
        "Sussillo and Abbott 2014",
    ),
    (
        "DepthScaling",
        "std = 1/sqrt(2 n d), 1/sqrt(d) or 2/(n sqrt(d))",
        "kernels that write into a residual stream",
        "Radford et al. 2019; Black et al. 2022",
    ),
    (
        "Critical",
        "N(0, sigma_w^2/fan_in), chi_1 = 1",
        "deep networks without normalization or residuals",
        "Schoenholz et al. 2017",
    ),
    ("CriticalBias", "N(0, sigma_b^2)", "the biases beside Critical kernels", "Schoenholz et al. 2017"),
    ("ScaledOrthogonal", "W = gain(f) Q, Q^T Q = I", "deep dense networks, in any precision", "Saxe et al. 2014"),
    ("DeltaOrthogonal", "K[center] = gain Q, else 0", "very deep plain convolutional networks", "Xiao et al. 2018"),
    (
        "ConvOrthogonal",
        "K = gain H * [P_1, I-P_1] * ...",
        "convolutions that keep the image's norm with every tap",
        "Xiao et al. 2018",
    ),
    ("GatewiseOrthogonal", "W = gain [Q_1, ..., Q_gates]", "recurrent kernels of LSTM and GRU", "Saxe et al. 2014"),
    ("Dirac", "K[center] = I, else 0", "convolutions that start as the identity", "Zagoruyko and Komodakis 2017"),
    (
        "Hadamard",
        "W = I*, or 2^(-m/2) I* H_m I* where it widens",
        "residual networks without random numbers",
        "Zhao et al. 2022",
    ),
    ("Sparse", "15 inputs a unit, N(0, stddev^2)", "wide layers that should not saturate", "Martens 2010"),
    (
        "Siren",
        "U(+-sqrt(6/fan_in)/omega_0); first layer U(+-1/fan_in)",
        "networks with sine activations",
        "Sitzmann et al. 2020",
    ),
    ("ICNR", "K = [K_0, ..., K_0], scale^d copies", "a convolution before depth_to_space", "Aitken et al. 2017"),
    ("BilinearUpsampling", "w(x) = 1 - |x - center|/f", "a transposed convolution that enlarges", "Long et al. 2015"),
    (
        "PriorProbabilityBias",
        "log(p/(1-p)), or log p_k for softmax",
        "the output's bias where labels are imbalanced",
        "Lin et al. 2017",
    ),
    (
        "UnitForgetGateBias",
        "[0, 1, 0, 0] for gates i, f, c, o",
        "an LSTM that starts by remembering",
        "Jozefowicz et al. 2015",
    ),
    (
        "ChronoBias",
        "b_f = log U(1, max_steps - 1), b_i = -b_f",
        "an LSTM on long sequences",
        "Tallec and Ollivier 2018",
    ),
)
_KERAS = (
    ("Constant", "W = value", "a known value", ""),
    (
        "GlorotNormal",
        "Var W = 2/(fan_in + fan_out), truncated normal",
        "tanh, sigmoid and linear layers",
        "Glorot and Bengio 2010",
    ),
    ("GlorotUniform", "Var W = 2/(fan_in + fan_out), uniform", "Keras' default kernel", "Glorot and Bengio 2010"),
    ("HeNormal", "Var W = 2/fan_in, truncated normal", "relu layers", "He et al. 2015"),
    ("HeUniform", "Var W = 2/fan_in, uniform", "relu layers", "He et al. 2015"),
    ("Identity", "W = gain I", "dense layers that start as the identity, relu recurrences", "Le et al. 2015"),
    ("LecunNormal", "Var W = 1/fan_in, truncated normal", "selu and linear layers", "LeCun et al. 1998"),
    ("LecunUniform", "Var W = 1/fan_in, uniform", "selu and linear layers", "LeCun et al. 1998"),
    ("Ones", "W = 1", "scales of normalization layers", ""),
    ("Orthogonal", "W = gain Q, Q^T Q = I", "deep and recurrent layers in float32", "Saxe et al. 2014"),
    ("RandomNormal", "N(mean, stddev^2)", "embeddings; a standard deviation that you choose", ""),
    ("RandomUniform", "U(minval, maxval)", "embeddings; limits that you choose", ""),
    ("STFT", "windowed cosines and sines", "convolutions that start as a spectrogram", ""),
    ("TruncatedNormal", "N(mean, stddev^2) cut at 2 stddev, 0.88 stddev remain", "as RandomNormal, without tails", ""),
    ("VarianceScaling", "Var W = scale/fan", "any scale, mode and distribution", "He et al. 2015"),
    ("Zeros", "W = 0", "biases; last layers of residual branches", ""),
)

_LINKS = {
    "Aitken et al. 2017": "https://arxiv.org/abs/1707.02937",
    "Glorot and Bengio 2010": "https://proceedings.mlr.press/v9/glorot10a.html",
    "Glorot and Bengio 2010, eq. 1": "https://proceedings.mlr.press/v9/glorot10a.html",
    "He et al. 2015": "https://arxiv.org/abs/1502.01852",
    "Jozefowicz et al. 2015": "https://proceedings.mlr.press/v37/jozefowicz15.html",
    "Le et al. 2015": "https://arxiv.org/abs/1504.00941",
    "LeCun et al. 1998": "https://doi.org/10.1007/3-540-49430-8_2",
    "Lin et al. 2017": "https://arxiv.org/abs/1708.02002",
    "Long et al. 2015": "https://arxiv.org/abs/1411.4038",
    "Martens 2010": "https://www.cs.toronto.edu/~jmartens/docs/Deep_HessianFree.pdf",
    "Radford et al. 2019; Black et al. 2022": "https://cdn.openai.com/better-language-models/"
    "language_models_are_unsupervised_multitask_learners.pdf",
    "Saxe et al. 2014": "https://arxiv.org/abs/1312.6120",
    "Schoenholz et al. 2017": "https://arxiv.org/abs/1611.01232",
    "Sitzmann et al. 2020": "https://arxiv.org/abs/2006.09661",
    "Sussillo and Abbott 2014": "https://arxiv.org/abs/1412.6558",
    "Tallec and Ollivier 2018": "https://arxiv.org/abs/1804.11188",
    "Xiao et al. 2018": "https://arxiv.org/abs/1806.05393",
    "Zagoruyko and Komodakis 2017": "https://arxiv.org/abs/1706.00388",
    "Zhao et al. 2022": "https://arxiv.org/abs/2110.12661",
    "": "",
}


def catalogue() -> list[Entry]:
    """Lists every initializer of keras_initkit, then those of the installed Keras.

    Example:

    >>> [(entry.name, entry.formula) for entry in catalogue() if entry.paper.startswith("Martens")]
    [('Sparse', '15 inputs a unit, N(0, stddev^2)')]
    """
    ours = [Entry(*entry, "keras_initkit", _LINKS[entry[3]]) for entry in _OURS]
    # An older Keras has fewer.
    return ours + [
        Entry(*entry, "keras", _LINKS[entry[3]]) for entry in _KERAS if hasattr(keras.initializers, entry[0])
    ]
