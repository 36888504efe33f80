"""Every threshold of statistics, reports and diagnosis: what it means and where it comes from.

"Measured" refers to the healthy and the broken training runs of `benchmarks/diagnosis.py`.

References:
    - Olivier Roy and Martin Vetterli (2007), "The effective rank: A measure of effective dimensionality",
      https://doi.org/10.5281/zenodo.40328
"""

# A layer's signal (`report/_health.py`) is healthy within this factor of where it enters: 100 in standard deviations. A
# warning beyond, an error beyond its square. Thirteen relu layers of Keras' default initializer, each of which halves
# the variance, stay within, and so do four hidden sigmoids, each of which takes 15/16 of the gradient's.
HEALTHY_FACTOR = 1e4

# An element is saturated beyond this fraction of the way from the middle of its activation's range to an end, and a
# unit if at least this fraction of its elements is: of N(0, s^2) before tanh, that takes s > 40.
SATURATION_DEPTH, SATURATED_FRACTION = 0.99, 0.95

# Numbers of one value differ by no more than this, relative to the largest of them. Rounding parts equal units: summed
# in vector lanes of another number, 37 equal relu units differ by 4e-7 after an epoch and by 2e-6 after three. At 2e-2,
# after ten, they are distinct. Measured with AVX2; with AVX-512 they stay equal to the last bit.
EQUAL_TOLERANCE = 1e-4
# What processors flush to 0 or keep as a subnormal number: below float32's smallest normal number.
SMALLEST_NORMAL = 2.0**-126
# Mean square of a signal whose products with weights of 0.01 are subnormal.
FAINT_MEAN_SQUARE = 1e-72

# Mean square of inputs. Images of 0..255 have 7,000 to 20,000, of 0..1 0.1 to 0.3; standardized data have 1, pixels
# that were divided by 255 twice 1e-6. An error beyond another factor.
INPUT_MEAN_SQUARES = (1e-4, 100.0)
GRAVE_INPUT_FACTOR = 10.0
# Data with more zeros than this (one-hot vectors, bags of words) may be small.
SPARSE_INPUT_FRACTION = 0.9

# Factor between a kernel's mean square and that of the nearest scheme: information, warning, error. Two layers at the
# warning leave 1/1000 of the signal; RandomNormal(stddev=0.05) in layers of 13 to 10,000 units stays below it.
MISMATCH_NOTED, MISMATCH, GRAVE_MISMATCH = 10.0, 30.0, 300.0
# p-value at which a chi-squared test tells a kernel's mean square from a scheme's.
MISMATCH_P_VALUE = 1e-6
# Factor between the variance that Keras' fans give and that of the layer's own: information, warning. A plain
# auto-encoder bears a factor of 4.
WRONG_FANS, GRAVE_WRONG_FANS = 2.0, 10.0

# Fraction of dead units. A unit whose weights are drawn around 0 is as likely negative as positive, so that half of the
# units stay alive even if all examples look alike.
DEAD_UNITS, DEAD_UNITS_P_VALUE = 0.5, 1e-3
# Fraction of saturated units of a hidden layer. Measured: healthy layers have fewer than 0.1.
SATURATED_UNITS = 0.5
# Mean slope of a bounded activation relative to its largest: warning, error. tanh of N(0, s^2) has 0.61 at s = 1, 0.51
# at He's 1.4 and 0.8 / s far out, a sigmoid as much at twice that s.
SATURATED_SLOPE, GRAVE_SLOPE = 1 / 3, 0.1
# Fraction of dead or saturated units that makes an error.
GRAVE_UNITS = 0.95
# Units of a layer whose width is not known: few, so that the test of dead units asks for more of them.
ASSUMED_UNITS = 10

# Factor between the sums of squares of two layers' gradients from which on a gradient that shrinks is more than
# information: an auto-encoder of two latent units that trains has 10^5. Measured.
VANISHED_GRADIENT = 1e6
# Factor by which a gradient (standard deviation) grows over the steps of a sequence; an error at its square.
EXPLODED_GRADIENT = 1e2

# Effective rank (Roy and Vetterli 2007) of a collapsed signal, in which examples differ by a few percent of what they
# share, and of one that still had directions to lose.
COLLAPSED_RANK, FULL_RANK = 1.2, 4.0
# Layers and kernels with fewer units have no rank to lose.
RANKED_UNITS = 4

# Decrease of the loss that the first step of gradient descent promises, rate * |gradient|^2, in units of the loss. On a
# quadratic it is twice the mean of rate * curvature, each direction weighed by its share of the loss: above 4 some
# direction has a curvature above 2 / rate, and the step climbs its other side higher than it was. Networks of relu may
# come down elsewhere up to a curvature of 12 / rate (Lewkowycz et al. 2020, https://arxiv.org/abs/2003.02218).
OVERSHOT, GRAVELY_OVERSHOT = 4.0, 24.0

# Standard deviation of an update relative to the weight's. Healthy training lies near 1e-3, Adam's first steps at up
# to 0.1. At 1e-6 a weight needs a million steps to move by its own size; at 1 one step replaces what was drawn.
UPDATE_TOO_SMALL, UPDATE_HEALTHY, UPDATE_TOO_LARGE, GRAVE_UPDATE = 1e-6, 1e-3, 0.2, 1.0
# A learning rate is cut to where the first update that was too large would have been this, tenfold at least and a
# hundredfold at most: what came after it was made by the weights that it had broken.
UPDATE_STILL_HEALTHY, LARGEST_CUT, LEAST_CUT = 1e-2, 0.1, 0.01
# A kernel that starts near 0 is judged by its updates from this fraction of its usual standard deviation on, or, if
# that is not known, from this standard deviation on.
GROWN_FRACTION, GROWN_STDDEV = 0.1, 1e-3
# Reports over which a fault has to last.
LASTING_REPORTS = 3

# Entropy of an attention's weights relative to that of uniform ones, in the head where it is largest: warning, error.
# Scores of standard deviation 1, as 1 / sqrt(d) makes them, leave 0.8 and more of 16 keys. Judged from four keys on.
COLLAPSED_ENTROPY, GRAVE_ENTROPY, ATTENTION_KEYS = 0.25, 0.05, 4
# Largest logit of attention in training beyond which it counts as grown: the second key then has e^-50 of the weight.
GROWN_LOGIT = 50.0
# What entropy lacks of uniform weights' after so many steps: logits of standard deviation 0.01 lack more.
UNIFORM_ENTROPY, TRAINED_STEPS = 1e-5, 100
# Change of an output relative to the largest change, below which it does not depend on a token or on order: rounding
# leaves 1e-6.
NO_DEPENDENCE = 1e-3
# Weight on padding relative to the fraction of padded keys; and in all, where the mask is the wrong way round.
PADDING_ATTENDED, PADDING_ATTENDED_ONLY = 0.1, 0.9
# How far the sum of a query's weights may be from 1 where keys are averaged.
UNEVEN_WEIGHTS = 0.1
# Part of the targets' variance that the last activation cannot reach: a warning, an error. At 5 % a perfect model has
# an R squared of 0.95.
UNREACHABLE, GRAVE_UNREACHABLE = 1e-3, 0.05
# Labels from which on it says something that all are alike, or that none of the rows has two ones; and from which on a
# class that only one in twenty examples has would be among them, but for 0.6 %.
ENOUGH_LABELS, MANY_LABELS = 16, 100
# The probability that a sound classifier can give: what bounds its logits lets it go that far at least.
SURE = 0.9
# Standard deviations by which labels in order have fewer runs than in a random order, and the part of the mixture of
# all labels that a batch then holds at most.
ORDERED_DEVIATIONS, MIXED_BATCHES = 6.0, 0.7
# Part of a moving average's start that is left at the end of training, and the factor between what inference and
# training then divide by: a warning, an error.
LAGGING_FRACTION, LAG, GRAVE_LAG = 0.1, 2.0, 10.0
# Training steps below which a run is a trial.
FEWEST_STEPS = 10
# Measured batches in a row without a gradient anywhere, after which it is no matter of sample weights.
SILENT_REPORTS = 10
