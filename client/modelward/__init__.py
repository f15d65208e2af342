"""modelward: verified updates of AI models, for devices.

The Python interface is two functions::

    with modelward.open_model("meter-reader") as model:
        session = onnxruntime.InferenceSession(model.read("model.onnx"))

    modelward.watch("meter-reader", load)  # calls load(model) now and after every update
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelward.model import Model, open_model
    from modelward.reload import Watch, watch
    from modelward.tensors import Tensor

__all__ = ["Model", "Tensor", "Watch", "open_model", "watch"]
_MODULES = {"Tensor": "tensors", "Watch": "reload", "watch": "reload"}


def __getattr__(name: str) -> Any:
    """Load the interface when it is used: the command line starts without it."""
    if name in __all__:
        import importlib  # noqa: PLC0415

        return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'model')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
