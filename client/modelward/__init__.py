"""modelward: verified updates of AI models, for devices.

The Python interface is three functions::

    with modelward.open_model("meter-reader") as model:
        session = onnxruntime.InferenceSession(model.read("model.onnx"))

    with modelward.open_models(["meter-reader", "tokenizer"]) as models:  # that belong together
        reader, tokenizer = models["meter-reader"], models["tokenizer"]

    modelward.watch("meter-reader", load)  # calls load(model) now and after every update
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelward.model import Model
    from modelward.opening import Models, open_model, open_models
    from modelward.reload import Watch, watch
    from modelward.tensors import Tensor

__all__ = ["Model", "Models", "Tensor", "Watch", "open_model", "open_models", "watch"]
_MODULES = {
    "Model": "model",
    "Models": "opening",
    "Tensor": "tensors",
    "Watch": "reload",
    "open_model": "opening",
    "open_models": "opening",
    "watch": "reload",
}


def __getattr__(name: str) -> Any:
    """Load the interface when it is used: the command line starts without it."""
    if name in __all__:
        import importlib  # noqa: PLC0415

        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
