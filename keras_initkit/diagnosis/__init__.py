"""Find what is wrong with a model or its training, why, and what to change."""

from keras_initkit.diagnosis._diagnose import diagnose
from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import KINDS, Finding, FindingKind, Severity
from keras_initkit.diagnosis._findings import Findings
from keras_initkit.diagnosis._readings import LayerReading
from keras_initkit.diagnosis._repair import repair
from keras_initkit.diagnosis._rule_registry import register_rule
from keras_initkit.diagnosis.context._kernel_context import KernelContext
from keras_initkit.diagnosis.context._model_context import ModelContext

__all__ = [
    "KINDS",
    "Evidence",
    "Finding",
    "FindingKind",
    "Findings",
    "KernelContext",
    "LayerReading",
    "ModelContext",
    "Severity",
    "diagnose",
    "register_rule",
    "repair",
]
