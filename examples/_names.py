"""Which examples there are."""

# In the order of the gallery. Each is the file `plot_<name>.py` beside this one.
NAMES = (
    "six_layers",
    "xavier_he",
    "batch_norm_rescue",
    "dense_128",
    "saturation",
    "cost_surfaces",
    "standard_normalized",
    "batch_norm_gradients",
    "batch_norm_by_hand",
    "batch_norm_gamma_beta",
    "zero",
    "pretraining",
    "preprocessing",
    "linear_100",
    "presets",
)
