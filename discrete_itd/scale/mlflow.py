"""An MLflow flavour: models saved, logged and loaded with signature, input example and requirements; no pickle.

MLflow keeps the file of the model as ``save`` writes it, with its card. ``mlflow.pyfunc.load_model`` returns a function
from a frame to the results of a :class:`~discrete_itd.scale.BatchScoring`; :func:`load_model` returns the estimator.
Needs the extra ``mlflow``: an ImportError says so.
"""

# the packages are extras: types are checked where they are not installed, too
# pyright: reportMissingImports=false

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from discrete_itd import __version__
from discrete_itd.detection.answers import answer_types, checked_outputs, density_of
from discrete_itd.encoders import Column
from discrete_itd.scale.batches import BatchScoring, read_model
from discrete_itd.validation import check_integer

if TYPE_CHECKING:
    import mlflow.models
    from mlflow.models.model import ModelInfo

    from discrete_itd.detection.answers import Estimator

FLAVOR = "discrete_itd"
FOLDER, FILE = "model", "model.safetensors"  # names of the data in MLflow's folder
REQUIREMENTS = (f"discrete-itd>={__version__}", "mlflow-skinny>=3")
EXAMPLE_ROWS = 3


def save_model(
    model: Estimator,
    path: str | os.PathLike[str],
    *,
    outputs: Sequence[str] | None = None,
    n_reasons: int = 1,
    input_example: pd.DataFrame | None = None,
    pip_requirements: Sequence[str] | None = None,
    mlflow_model: mlflow.models.Model | None = None,
) -> None:
    """Save a fitted model as a folder in MLflow's format.

    Parameters
    ----------
    model : DiffusionDensity or DiffusionOutlierDetector
    path : path-like
        A folder that does not exist yet.
    outputs, n_reasons
        Results of ``predict`` of ``mlflow.pyfunc``: see :class:`~discrete_itd.scale.BatchScoring`.
    input_example : DataFrame, optional
        Rows of the table; by default synthetic ones, drawn from the model.
    pip_requirements : sequence of str, optional
        By default ranges of this package and MLflow.
    mlflow_model : mlflow.models.Model, optional
        To which the flavour is added.

    Raises
    ------
    ValueError, TypeError
        Naming the output that the model does not have.

    Notes
    -----
    MLflow compares the types of a frame with the signature before it calls the model. Columns of one plain numpy type
    or of text have that type; columns that had missing cells or are of another dtype take any.
    """
    _need_mlflow()
    import mlflow.models
    import mlflow.pyfunc

    check_is_fitted(model)
    outputs = checked_outputs(model, outputs)
    check_integer("n_reasons", n_reasons, 1)
    if input_example is None:
        input_example = pd.DataFrame(density_of(model).sample(EXAMPLE_ROWS, random_state=0))
        input_example.columns = [str(name) for name in input_example.columns]
    target = mlflow.models.Model() if mlflow_model is None else mlflow_model
    target.add_flavor(FLAVOR, version=__version__, data=f"data/{FOLDER}/{FILE}")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / FOLDER
        data.mkdir()
        model.save(data / FILE)
        mlflow.pyfunc.save_model(
            path=os.fspath(path),
            loader_module=__name__,
            data_path=os.fspath(data),
            mlflow_model=target,
            signature=signature_of(model, outputs, n_reasons),
            input_example=input_example,
            pip_requirements=list(REQUIREMENTS if pip_requirements is None else pip_requirements),
            model_config={"outputs": list(outputs), "n_reasons": n_reasons, "device": "cpu"},
        )


def log_model(
    model: Estimator, name: str, *, registered_model_name: str | None = None, **settings: Any
) -> ModelInfo:
    """Log a fitted model to MLflow's current run, or to a new one; ``settings`` are those of :func:`save_model`.

    With ``registered_model_name`` it is also registered as a new version. The result's ``model_uri`` is for
    :func:`load_model` and ``mlflow.pyfunc.load_model``.
    """
    _need_mlflow()
    import mlflow.models

    return mlflow.models.Model.log(
        artifact_path=None,
        name=name,
        flavor=sys.modules[__name__],
        registered_model_name=registered_model_name,
        model=model,
        **settings,
    )


def load_model(model_uri: str, *, device: str = "auto", trusted: Sequence[type] = ()) -> Estimator:
    """Load a density or a detector from a folder or a URI of MLflow; see :meth:`DiffusionDensity.load`.

    An OSError or ValueError if there is no such model, or the folder names a file outside of it.
    """
    _need_mlflow()
    import mlflow.artifacts
    import mlflow.models

    folder = mlflow.artifacts.download_artifacts(artifact_uri=os.fspath(model_uri))
    flavors = mlflow.models.Model.load(folder).flavors
    if FLAVOR not in flavors:
        raise ValueError(f"{model_uri}: not saved by discrete_itd, but as {', '.join(flavors)}")
    path = os.path.join(folder, str(flavors[FLAVOR].get("data")))
    inner, outer = os.path.realpath(path), os.path.realpath(folder)
    if os.path.commonpath([inner, outer]) != outer:
        raise ValueError(f"{model_uri}: its model lies outside of the folder: {path}")
    return read_model(path, device, trusted)


def signature_of(
    model: Estimator, outputs: Sequence[str], n_reasons: int
) -> mlflow.models.ModelSignature:
    """The types of the model's columns and of its results."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    columns = density_of(model).encoder_.read_columns
    inputs: list[Any] = [ColSpec(_type_of(c), str(c.name)) for c in columns]
    kinds = {"f": "double", "b": "boolean"}
    answers = answer_types(model, outputs, n_reasons)
    return ModelSignature(
        Schema(inputs),
        Schema([ColSpec(kinds.get(t.kind, "string"), name) for name, t in answers.items()]),
    )


def _type_of(column: Column) -> Any:
    """MLflow's type of a column: any, unless one type holds all of its values and missing cells, if there are any."""
    from mlflow.types.schema import AnyType

    kinds = {"f": "double", "M": "datetime"}
    if not column.n_missing:
        kinds |= {"i": "long", "b": "boolean"}
    if column.notation is not None:  # text or numbers
        return AnyType()
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in kinds:
        return kinds[column.dtype.kind]
    is_plain = not isinstance(column.dtype, pd.CategoricalDtype)
    return "string" if column.is_text and is_plain else AnyType()


class Predictor:
    """The model of ``mlflow.pyfunc``."""

    def __init__(self, scoring: BatchScoring) -> None:
        self.scoring = scoring

    def predict(
        self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        """The results for each row, with the index of the frame."""
        return self.scoring(model_input)


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> Predictor:
    """Called by ``mlflow.pyfunc.load_model``; its ``model_config`` may change outputs, n_reasons and device."""
    config = dict(model_config or {})
    scoring = BatchScoring(
        os.path.join(path, FILE),
        outputs=config.get("outputs"),
        keep=(),
        n_reasons=config.get("n_reasons", 1),
        device=config.get("device", "cpu"),
    ).pinned()
    scoring.model()
    return Predictor(scoring)


def _need_mlflow() -> None:
    try:
        import mlflow.pyfunc  # noqa: F401
    except ImportError as error:
        raise ImportError("mlflow is not installed: pip install 'discrete-itd[mlflow]'") from error
