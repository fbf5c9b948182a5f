"""Pictures of evaluations.

matplotlib comes with ``pip install 'pipnet_fast[train]'`` and is imported when a picture needs it.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipnet_fast.crop import Affine, CropRule, Image, transform, warp
from pipnet_fast.data.samples import FaceData
from pipnet_fast.evaluate.evaluation import THRESHOLD, Evaluation
from pipnet_fast.evaluate.grids import GridAccuracy
from pipnet_fast.evaluate.prior import Prior
from pipnet_fast.evaluate.regions import regions
from pipnet_fast.layouts import Layout, MeanShape
from pipnet_fast.neighbors import NeighborTable
from pipnet_fast.pipeline.draw import COLORS, SHIFT, fixed_point, write_png

Path = str | os.PathLike[str]

# Of the pictures of faces: side of a tile, and the pictures' share around the face, px.
TILE = 320
AROUND = CropRule(scale=1.5)
TRUTH, PREDICTED = COLORS[0], COLORS[4]


def require_matplotlib() -> None:
    """Raise ImportError, saying what to install, where there is no matplotlib."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'pipnet_fast[train]'") from None


def draw_ced(evaluations: Sequence[Evaluation], path: Path, threshold: float = THRESHOLD) -> None:
    """Cumulative error distributions up to ``threshold`` percent, one curve each."""
    figure, axes = _figure(6, 4.2)
    grid = np.linspace(0, threshold, 501)
    for evaluation, color in zip(evaluations, _cycle(len(evaluations)), strict=True):
        label = f"{evaluation.name}: NME {evaluation.nme:.2f}, AUC {evaluation.auc(threshold):.1f}"
        axes.plot(grid, evaluation.ced(grid), label=label, color=color, linewidth=2)
    axes.set(xlim=(0, threshold), ylim=(0, 100), ylabel="faces, %")
    axes.set_xlabel(f"error, % of the {_spoken(evaluations[0])}")
    axes.set_title(f"{evaluations[0].data}, {len(evaluations[0])} faces")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize=8)
    _save(figure, path)


def draw_landmark_errors(
    evaluations: Sequence[Evaluation], layout: Layout, path: Path, *, face: int | None = None
) -> None:
    """The error of every landmark as bars, grouped by region as in Figure 6; one panel an evaluation.

    Args:
        evaluations: on the same faces.
        layout: what their landmarks are.
        path: where to.
        face: which row of the evaluations; by default the mean over all faces.
    """
    figure, panels = _figure(11, 2.6 * len(evaluations), len(evaluations))
    groups = regions(layout)
    order = [n for members in groups.values() for n in members]
    errors = [e.landmark_errors if face is None else e.errors[face] for e in evaluations]
    highest = 1.1 * max(float(np.nan_to_num(values).max()) for values in errors)
    for axes, evaluation, values in zip(panels, evaluations, errors, strict=True):
        start = 0
        for (name, members), color in zip(groups.items(), _cycle(len(groups)), strict=True):
            places = range(start, start + len(members))
            axes.bar(places, values[members], color=color, width=0.8)
            axes.annotate(
                name, (start + (len(members) - 1) / 2, 0.97), xycoords=("data", "axes fraction"), ha="center", va="top",
                fontsize=8, color=color, rotation=0 if len(members) > 3 else 90,
            )  # fmt: skip
            start += len(members)
        axes.set_xticks(range(len(order)), order, fontsize=6, rotation=90)
        axes.set(
            xlim=(-1, len(order)),
            ylim=(0, 1.12 * highest if highest > 0 else 1),
            ylabel=f"error, % of {_spoken(evaluation)}",
        )
        axes.set_title(
            f"{evaluation.name}: {float(np.nanmean(values)) if np.isfinite(values).any() else float('nan'):.2f}%",
            fontsize=9,
        )
    panels[-1].set_xlabel("landmark")
    _save(figure, path)


def draw_worst_faces(evaluation: Evaluation, data: FaceData, path: Path, count: int = 12, columns: int = 4) -> None:
    """The faces with the greatest errors, labels and predictions drawn in and joined; those not found come first.

    Raises:
        OSError: the picture cannot be written.
        ImageError: an image cannot be read.
    """
    errors = evaluation.face_errors
    measured = np.flatnonzero(~np.isnan(errors))
    worst = measured[np.argsort(-errors[measured], kind="stable")][:count]
    tiles = [_face(evaluation, data, int(row)) for row in worst]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns if len(tiles) > columns else 0)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    write_png(os.fspath(path), np.concatenate(rows, axis=0))


def draw_sweep(evaluations: Sequence[Evaluation], values: Sequence[float], name: str, path: Path) -> None:
    """NME against a setting of the models, as Table 1 (strides) and Figure 11 (neighbors); the line is the mean."""
    figure, axes = _figure(5, 3.6)
    nmes = np.array([evaluation.nme for evaluation in evaluations])
    settings = np.unique(values)
    means = [nmes[np.equal(values, setting)].mean() for setting in settings]
    axes.plot(settings, means, color="tab:blue", linewidth=1.5)
    axes.plot(values, nmes, "o", color="tab:blue", markersize=6, alpha=0.7)
    axes.set_xticks(settings)
    axes.set(xlabel=name, ylabel="NME, %")
    axes.set_title(f"{evaluations[0].data}, {len(evaluations[0])} faces", fontsize=9)
    axes.grid(alpha=0.3)
    _save(figure, path)


def draw_grids(accuracies: Sequence[GridAccuracy], path: Path) -> None:
    """How often the right cell wins against the stride of the grid, as Figure 7; one color a model."""
    figure, axes = _figure(6, 4.2)
    for accuracy, color in zip(accuracies, _cycle(len(accuracies)), strict=True):
        strides = [grid.stride for grid in accuracy.grids]
        for values, style, label in (
            ([grid.pooled for grid in accuracy.grids], "o-", f"{accuracy.name}, pooled features"),
            ([grid.merged for grid in accuracy.grids], "x:", f"{accuracy.name}, the finest winner's cell"),
        ):
            axes.plot(strides, values, style, color=color, label=label, linewidth=1.5)
    axes.set_xscale("log", base=2)
    strides = sorted({grid.stride for accuracy in accuracies for grid in accuracy.grids})
    axes.set_xticks(strides, strides)
    axes.set(xlabel="input px per cell", ylabel="landmarks whose cell wins, %")
    axes.set_title(f"{accuracies[0].data}, {accuracies[0].faces} faces", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, path)


def draw_priors(priors: Sequence[Prior], path: Path, rows: int = 6) -> None:
    """What models see in pictures without a face, as Figure 9: a column a model, a row a picture.

    Predictions are green; gray, where known, is the mean shape.

    Args:
        priors: of every model on the same pictures, in the same order.
        path: where to.
        rows: of each kind of pictures at most so many.
    """
    models, kinds = (list(dict.fromkeys(getattr(prior, name) for prior in priors)) for name in ("model", "pictures"))
    found = {(prior.model, prior.pictures): prior for prior in priors}
    pictures = [(kind, number) for kind in kinds for number in range(min(rows, len(found[models[0], kind].crops)))]
    figure, panels = _figure(2.2 * len(models), 2.2 * len(pictures), len(pictures), len(models))
    for axes in panels:
        axes.set(xticks=[], yticks=[])
    for place, axes in enumerate(panels):
        (kind, number), model = pictures[place // len(models)], models[place % len(models)]
        prior = found[model, kind]
        # Fractions of the crop are the axes' unit, and predictions may leave it.
        axes.imshow(prior.crops[number], extent=(0, 1, 1, 0))
        if prior.mean_shape is not None:
            axes.scatter(*prior.mean_shape.T, s=2, color="silver")
        axes.scatter(*prior.points_frac[number].T, s=5, color="lime", edgecolors="black", linewidths=0.3)
        axes.set(xlim=(0, 1), ylim=(1, 0))
        if place < len(models):
            axes.set_title(model, fontsize=8)
        if place % len(models) == 0:
            axes.set_ylabel(os.path.basename(os.path.normpath(kind)), fontsize=8)
    _save(figure, path)


def draw_neighbors(mean_shape: MeanShape, table: NeighborTable, path: Path, landmarks: Sequence[int]) -> None:
    """The mean face (N, 2), and the neighbors that each of some landmarks votes for, a panel each."""
    columns = min(4, len(landmarks))
    rows = -(-len(landmarks) // columns)
    figure, panels = _figure(3 * columns, 3 * rows, rows, columns)
    for axes in panels:
        axes.axis("off")
    for axes, landmark in zip(panels, landmarks, strict=False):
        chosen = table.neighbors[landmark].tolist()
        axes.scatter(*mean_shape.T, s=8, color="lightgray")
        for rank, neighbor in enumerate(chosen):
            axes.plot(*mean_shape[[landmark, neighbor]].T, color="tab:blue", linewidth=0.8)
            axes.annotate(str(rank + 1), mean_shape[neighbor], fontsize=7, ha="center", va="center",
                          bbox={"boxstyle": "circle,pad=0.15", "fc": "white", "ec": "tab:blue", "lw": 0.6})  # fmt: skip
        axes.scatter(*mean_shape[landmark], s=30, color="tab:red", zorder=3)
        axes.set_title(f"landmark {landmark}", fontsize=9)
        axes.set_aspect("equal")
        axes.invert_yaxis()
    _save(figure, path)


def _face(evaluation: Evaluation, data: FaceData, row: int) -> Image:
    """A face with its labels, its predictions, and lines between them."""
    truth, predicted = evaluation.truth[row], evaluation.points[row]
    both = np.concatenate((truth, predicted))
    both = both[np.isfinite(both).all(axis=1)]
    # A square, so that faces keep their shape.
    center, half = (both.min(axis=0) + both.max(axis=0)) / 2, max(1.0, float(np.ptp(both, axis=0).max()) / 2)
    box = np.concatenate((center - half, center + half))
    affine = AROUND.affine(AROUND.apply(box[None]), TILE)[0]
    tile = warp(data.samples[int(evaluation.index[row])].image.read(), affine, TILE)
    for label, guess in zip(_on(truth, affine), _on(predicted, affine), strict=True):
        if label and guess:
            cv2.line(tile, label, guess, (255, 255, 255), 1, cv2.LINE_AA, SHIFT)
        for point, color in ((label, TRUTH), (guess, PREDICTED)):
            if point:
                cv2.circle(tile, point, 2 << SHIFT, color, cv2.FILLED, cv2.LINE_AA, SHIFT)
    error = evaluation.face_errors[row]
    caption = "not found" if np.isinf(error) else f"{error:.1f}%"
    cv2.rectangle(tile, (0, 0), (TILE, 20), (0, 0, 0), cv2.FILLED)
    # OpenCV's letters are ASCII.
    name = os.path.basename(evaluation.images[row]).encode("ascii", "replace").decode()
    cv2.putText(tile, f"{caption} {name}", (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return tile


def _on(points: npt.NDArray[np.float64], affine: Affine) -> list[tuple[int, int] | None]:
    """Points on a tile as OpenCV draws them; None for NaN."""
    return [None if np.isnan(point).any() else fixed_point(*point) for point in transform(affine, points)]


def _figure(width: float, height: float, rows: int = 0, columns: int = 1) -> tuple[Any, Any]:
    """A figure and its axes, a flat array of them where rows are given; no display, and no state outside of it."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False).ravel() if rows else figure.subplots()


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=130, format="png")


def _cycle(count: int) -> list[str]:
    names = ("blue", "orange", "green", "red", "purple", "brown", "pink", "olive", "cyan", "gray")
    return [f"tab:{names[i % len(names)]}" for i in range(count)]


def _spoken(evaluation: Evaluation) -> str:
    spoken: Mapping[str, str] = {
        "inter_ocular": "inter-ocular distance",
        "box": "box side",
        "diagonal": "face diagonal",
    }
    return spoken[evaluation.norm]
