"""modelward: verified updates of AI models, for devices.

The Python interface is one function::

    with modelward.open_model("meter-reader") as model:
        session = onnxruntime.InferenceSession(model.read("model.onnx"))
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelward.model import Model, open_model

__all__ = ["Model", "open_model"]


def __getattr__(name: str) -> Any:
    """Load the interface when it is used: the command line starts without it."""
    if name in __all__:
        from modelward import model  # noqa: PLC0415

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
