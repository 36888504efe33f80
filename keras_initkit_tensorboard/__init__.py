"""The tab "Layers" in TensorBoard.

TensorBoard finds it by its entry point. It reads logs alone and stands outside the package, which imports Keras:
TensorBoard starts as fast as without it.
"""

from keras_initkit_tensorboard._plugin import LayersPlugin

__all__ = ["LayersPlugin"]
