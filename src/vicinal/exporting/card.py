"""The model card: what a model was trained on, what was measured of it, how to use it, and what is not known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vicinal.data import SOURCES
from vicinal.experiment import Experiment, method_class
from vicinal.exporting.description import input_name
from vicinal.predicting import Calibration
from vicinal.reporting import Table
from vicinal.runs import Run, TrainedNetwork, WhichName

_FIGURES = {
    "error": ("error %", 100, 2),
    "nll": ("negative log-likelihood, nats", 1, 3),
    "brier": ("Brier score, 0 to 2", 1, 3),
    "ece": ("expected calibration error %", 100, 2),
    "confidence_gap": ("mean confidence minus accuracy %", 100, 2),
}
_Z = 1.959964
"""Half the width of a normal distribution's central 95 %."""
_MANY_CLASSES = 20


def model_card(run: Run, trained: TrainedNetwork, calibration: Calibration, which: WhichName) -> str:
    """The text of ``README.md``: YAML metadata as the Hugging Face hub reads them, then Markdown.

    Only what the run's directory says stands in it. A folder of somebody's own is named without the path to it.

    Args:
        run: a finished run.
        trained: its network.
        calibration: of its confidences.
        which: the weights that leave.
    """
    values, experiment = run.evaluation(), run.experiment
    about, data = values["provenance"], _data_name(experiment)
    header = yaml.safe_dump(_metadata(trained, values, data, which), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{header}---\n\n# {data}: {about['method']}",
        _summary(trained, about, data, values["weights"]),
        _use(trained),
        _evaluation(values, calibration, which),
        _training(run, about, data),
        _limits(values),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def wilson(wrong: int, n: int) -> tuple[float, float]:
    """95 % confidence interval of a share, Wilson's score interval (Wilson 1927).

    Args:
        wrong: number of cases, 0 <= wrong <= n.
        n: number of trials, at least 1.

    >>> tuple(round(bound, 3) for bound in wilson(0, 20)), tuple(round(bound, 3) for bound in wilson(5, 20))
    ((0.0, 0.161), (0.112, 0.469))
    """
    share, spread = wrong / n, _Z**2 / n
    centre = share + spread / 2
    half = _Z * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    # At 0 and n the interval ends there exactly; rounding may not carry it past the share.
    return max(0.0, min(share, (centre - half) / (1 + spread))), min(1.0, max(share, (centre + half) / (1 + spread)))


def _data_name(experiment: Experiment) -> str:
    """What the data are called; of all but known data the last part, as the rest tells about somebody's machine."""
    name = experiment.data.name
    return name if name in SOURCES else Path(name).expanduser().resolve().name


def _metadata(trained: TrainedNetwork, values: Mapping[str, Any], data: str, which: str) -> dict[str, Any]:
    images = len(trained.shape) == 3
    task = "image-classification" if images else "tabular-classification"
    metadata: dict[str, Any] = {
        "library_name": "vicinal",
        "pipeline_tag": task,
        "tags": ["vicinal", "few-labels", values["provenance"]["method"]],
    }
    results = []
    for part in ("test", "validation"):
        error = ((values[part] or {}).get("error") or {}).get(which)
        if error is not None:
            dataset = {"name": data, "type": data, "split": part}
            metric = {"type": "accuracy", "value": round(1 - error, 6), "name": f"accuracy, n = {values[part]['n']}"}
            results.append({"task": {"type": task}, "dataset": dataset, "metrics": [metric]})
    if results:
        metadata["model-index"] = [{"name": f"{data} {values['provenance']['method']}", "results": results}]
    return metadata


def _summary(trained: TrainedNetwork, about: Mapping[str, Any], data: str, weights: str) -> str:
    method = (method_class(about["method"]).__doc__ or "").strip().partition("\n")[0]
    classes = ", ".join(trained.classes[:_MANY_CLASSES])
    more = len(trained.classes) - _MANY_CLASSES
    classes += f", and {more} more (see config.json)" if more > 0 else ""
    unlabelled = f" and {about['unlabelled']} training examples without" if about["unlabelled"] else ""
    return (
        f"A classifier trained on {data} with {about['labels']} labels{unlabelled}, by the method "
        f"`{about['method']}`: {method}\n\n"
        f"- input: {_shape(trained.shape)}, float32; preprocessing (`{about['preprocess']}`) is inside\n"
        f"- output: logits of {len(trained.classes)} classes: {classes}\n"
        f"- network: {about['backbone']}, {about['parameters']} parameters; {weights} weights, step {trained.step}"
    )


def _shape(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"vectors of {shape[0]} numbers (N, {shape[0]}), in the units of the training data"
    kind = {1: "grey", 3: "RGB"}.get(shape[0], f"{shape[0]}-channel")
    return f"{kind} images (N, {shape[0]}, {shape[1]}, {shape[2]}) in [0,1]"


def _use(trained: TrainedNetwork) -> str:
    name = input_name(trained.shape)
    return f"""## Use

```python
import torch
from vicinal.exporting import load

model = load("this-folder")  # runs no code of the folder
{name} = torch.rand(1, {", ".join(map(str, trained.shape))})  # yours, as above
with torch.no_grad():
    best = model.network({name}).softmax(dim=1).max(dim=1)
print([model.classes[c] for c in best.indices.tolist()], best.values.tolist())
```"""


def _evaluation(values: Mapping[str, Any], calibration: Calibration, which: str) -> str:
    columns, cells = [], []
    for part in ("test", "validation"):
        found = values[part]
        if found is not None:
            columns.append(f"{part}, n = {found['n']}")
            cells.append(
                [
                    _cell((found.get(name) or {}).get(which), scale, digits)
                    for name, (_, scale, digits) in _FIGURES.items()
                ]
            )
            error = (found.get("error") or {}).get(which)
            if error is not None:
                low, high = wilson(round(error * found["n"]), found["n"])
                cells[-1][0] += f" ({100 * low:.1f} to {100 * high:.1f})"
    confidence = f"Confidences: {_calibrated(values, calibration)}."
    if not columns:
        return f"## Evaluation\n\nNothing was measured: the data had neither a test nor a validation part. {confidence}"
    rows = tuple((title, *(column[i] for column in cells)) for i, (title, _, _) in enumerate(_FIGURES.values()))
    validation = (
        " The validation part selected this step, so that its figures are too good."
        if which == "best_validation"
        else " The validation part selected nothing of these weights."
    )
    table = Table("Evaluation", ("figure", *columns), rows).markdown()
    return (
        f"{table}\nOne training run, one seed: another seed gives other figures. In brackets: 95 % interval of the "
        f"error of this network on other examples of the same kind (Wilson)."
        f"{validation if values['validation'] else ''} "
        f"Probabilities are as the network gives them. {confidence}"
    )


def _calibrated(values: Mapping[str, Any], calibration: Calibration) -> str:
    """How confidences are calibrated. Why data could not be read names paths of somebody's machine, and is left out."""
    if calibration.temperature is not None or calibration.n or values["validation"] is None:
        return str(calibration)
    return "not calibrated: the validation examples were not there when the model was exported"


def _cell(value: float | None, scale: int, digits: int) -> str:
    return "-" if value is None else f"{scale * value:.{digits}f}"


def _training(run: Run, about: Mapping[str, Any], data: str) -> str:
    described = run.experiment.as_dict()
    described["data"] = {**described["data"], "name": data}
    if "path" in described["data"]:
        described["data"]["path"] = Path(str(described["data"]["path"])).name
    if "weights" in described["network"]:
        described["network"] = {
            **described["network"],
            "weights": Path(str(described["network"]["weights"])).name,
        }
    lines = {
        "data": f"{data}, content {about['data'].get('content', 'unknown')}",
        "labels": f"{about['labels']} labelled, {about['unlabelled']} used without label; split {about['split']}",
        "seed": about["seed"],
        "steps": about["steps"],
        "software": f"vicinal {about['version']} (commit {about['commit']}), torch {about['machine']['torch']}",
    }
    listed = "\n".join(f"- {name}: {value}" for name, value in lines.items())
    complete = yaml.safe_dump(described, sort_keys=False, allow_unicode=True)
    return (
        f"## Training\n\n{listed}\n\n"
        f"The complete description, which `vicinal fit --config` reads:\n\n```yaml\n{complete}```"
    )


def _limits(values: Mapping[str, Any]) -> str:
    limits = [
        "It knows these classes alone: an image of anything else gets one of them, often with high probability.",
        "It was measured on data like its training data. Other cameras, scanners, places or times can change every "
        "figure.",
        "This card holds no measurement of robustness to attacks or corruptions; `vicinal evaluate` makes them.",
    ]
    if values["test"] is None:
        limits.insert(0, "There was no test part: its error on new examples was not measured.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)
