"""`track`: where metrics go besides the run folder."""

import re
from typing import Annotated

from pydantic import model_validator

from fusionjax import registry
from fusionjax.config.section import Known, Section


class Track(Section):
    """Where the numbers of metrics.jsonl go besides TensorBoard. Not part of what a run is: with other trackers it is the same
    run, in the same folder. Nothing leaves the machine unless it is told to; a tracker that fails disturbs nothing.
    """

    wandb: bool = False
    """Weights & Biases (extra `wandb`): offline, in the run folder (`wandb sync` uploads it), unless WANDB_MODE is set."""
    mlflow: bool = False
    """MLflow (extra `mlflow`), at `mlflow_uri`."""
    trackio: bool = False
    """trackio (extra `trackio`): its own local folder, unless its variables (TRACKIO_DIR, TRACKIO_SPACE_ID) say otherwise."""
    plugins: tuple[Annotated[str, Known(registry.TRACKERS, ())], ...] = ()
    """Trackers of plug-ins."""
    project: str = "fusionjax"
    """Project (W&B, trackio) or experiment (MLflow): letters, digits and `_-.`."""
    name: str | None = None
    """Name of the run there; default: that of the run folder."""
    mlflow_uri: str | None = None
    """`sqlite:///FILE`, `https://SERVER`, …; default: MLFLOW_TRACKING_URI, else `trackers/mlflow.db` in the run folder."""

    @model_validator(mode="after")
    def _places_exist(self) -> "Track":
        if not re.fullmatch(r"\w[\w.-]*", self.project):
            raise ValueError(f"project '{self.project}' must be letters, digits and _-. only")
        uri = self.mlflow_uri
        if uri is not None and uri != "databricks" and ("://" not in uri or uri.startswith("file:")):
            raise ValueError(f"mlflow_uri '{uri}' is no database or server (MLflow gave up folders): sqlite:///FILE, https://…")
        return self
