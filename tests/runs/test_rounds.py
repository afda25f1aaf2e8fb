"""Examples without labels and labels that may be wrong, through prompt="auto"."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from families import open_tiny
from helpers import colours, pictures
from PIL import Image

import vpt
from vpt.data import Examples
from vpt.errors import BadFilesError, DataError, TrainingError
from vpt.runs import again, rounds, unlabelled
from vpt.runs.again import Again, learn_again
from vpt.runs.candidates import Trial, choose_among
from vpt.runs.choosing import calibrated, folds_of, losses_of
from vpt.runs.doubting import explained
from vpt.runs.guessing import aligned, guessed, said_of_held_out, trust
from vpt.runs.kept import keep
from vpt.runs.likeness import alike
from vpt.runs.nested import said_to_members
from vpt.runs.querying import judged, queries_for, seen_by
from vpt.runs.rounds import LEAST, believed, go_on
from vpt.training import side_by_side
from vpt.training.side_by_side import Members


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "STEPS", 10)
    monkeypatch.setattr(side_by_side, "FEWEST", 10)


def first_round(count: int = 24) -> tuple[Trial, vpt.Backbone]:
    backbone, examples = open_tiny("timm ViT"), colours(count)
    start = queries_for(backbone)
    trial = Trial(
        backbone,
        keep(backbone, examples, blocks=start.blocks),
        examples.classes,
        folds_of(examples, 0),
        start,
    )
    return trial, backbone


def test_trust_goes_to_what_is_right_and_sums_to_one() -> None:
    y = torch.arange(30) % 3
    good = torch.full((30, 3), 0.1).double()
    good[torch.arange(30), y] = 0.8
    blind = torch.full((30, 3), 1 / 3).double()
    wrong = good.roll(1, 1)
    found = trust([good, blind, wrong], y)
    assert sum(found) == pytest.approx(1)
    assert found[0] > 0.9
    # two that are right about different halves are both trusted
    halves = [torch.where((torch.arange(30) < 15)[:, None] == part, good, blind) for part in (1, 0)]
    assert trust(halves, y) == pytest.approx([0.5, 0.5], abs=1e-6)


def test_guesses_are_aligned_with_labels_unless_these_are_of_other_shares() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(200, 3, generator=generator).double() + torch.tensor([0.3, 0.0, 0.0])
    shares = shares / shares.sum(1, keepdim=True)
    wanted = torch.tensor([0.3, 0.35, 0.35]).double()
    found = aligned(shares, wanted)
    assert torch.allclose(found.mean(0), wanted, atol=1e-6)
    assert torch.allclose(found.sum(1), torch.ones(200).double())
    skewed = torch.tensor([0.9, 0.05, 0.05]).double()
    assert aligned(shares, skewed) is shares


def test_no_member_guesses_by_labels_that_it_must_not_see() -> None:
    trial, backbone = first_round()
    choose_among(trial, 0, progress=False)
    others = keep(backbone, colours(9, 5), blocks=trial.start.blocks)
    found = guessed(trial, others)
    assert found.shape == (len(trial.folds) + 1, 9, 3)
    assert torch.allclose(found.sum(2), torch.ones(len(trial.folds) + 1, 9).double())
    # other labels of what fold 0 holds out: nothing to its member, something to the last
    held = torch.from_numpy(trial.folds[0][1])
    trial.kept.y[held] = (trial.kept.y[held] + 1) % 3
    other = guessed(trial, others)
    assert torch.equal(other[0], found[0])
    assert not torch.allclose(other[-1], found[-1], atol=1e-3)


def test_with_labels_alone_a_second_round_is_the_first_but_for_the_classifier() -> None:
    trial, _ = first_round()
    choose_among(trial, 0, progress=False)
    labels = torch.nn.functional.one_hot(trial.kept.y, 3).double()
    seen = seen_by(trial.folds, torch.arange(24), 24)
    told = seen[..., None] * labels
    made = learn_again(trial, Again(trial.kept, told, ", again"), ["cls"], 0, progress=False)
    assert [one.name for one in made] == ["probe cls, again", "queries:4, again"]
    first = next(one for one in trial.made if one.name == "probe cls")
    # the same regression, but for standardising by all examples and not by those of the fold
    agree = (first.scores.argmax(1) == made[0].scores.argmax(1)).double().mean()
    assert float(agree) > 0.9
    one, other = trial.learned["queries:4"], trial.learned["queries:4, again"]
    for rows, same in zip(one.members.queries, other.members.queries, strict=True):
        assert torch.allclose(rows, same, atol=1e-5)


def test_from_guesses_the_better_of_two_classifiers_of_the_same_queries_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial, backbone = first_round()
    choose_among(trial, 0, progress=False)
    others = keep(backbone, colours(9, 5), blocks=trial.start.blocks)
    kept, y, tested = trial.kept.joined(others), trial.kept.y, trial.tested
    labels = torch.nn.functional.one_hot(y, 3).double()
    told = seen_by(trial.folds, torch.arange(24), 24)[..., None] * labels
    told = torch.cat([told, guessed(trial, others)], 1)
    made = again.refitted_on_shares
    members = []

    def refitted(one: Members, *rest: object) -> Members:
        members.extend([one, made(one, *rest)])
        return members[-1]

    monkeypatch.setattr(again, "refitted_on_shares", refitted)
    found = learn_again(trial, Again(kept, told, ", too"), [], 0, progress=False)[0]
    assert len(members) == 2
    losses = []
    for one in members:
        scores = judged(trial.start, one, trial.kept, trial.folds, False)[1]
        losses.append(
            float(losses_of(calibrated("", 0, scores, y, tested).scores, y, tested).mean())
        )
    taken = trial.learned["queries:4, too"].members
    assert taken is members[losses.index(min(losses))]
    assert float(losses_of(found.scores, y, tested).mean()) == pytest.approx(min(losses))


def test_no_member_doubts_a_label_by_labels_that_judge_it() -> None:
    trial, _ = first_round()
    choose_among(trial, 0, progress=False)
    found = said_to_members(trial, 0, progress=False)
    for number, (_, held) in enumerate(trial.folds):
        assert not found[number, held].any()  # of its own fold nothing is said
        rest = torch.ones(24).bool()
        rest[torch.from_numpy(held)] = False
        assert torch.allclose(found[number, rest].sum(1), torch.ones(int(rest.sum())).double())
    # other labels of fold 0 change what is said to others, and nothing of what is said to it
    held = torch.from_numpy(trial.folds[0][1])
    trial.kept.y[held] = (trial.kept.y[held] + 1) % 3
    other = said_to_members(trial, 0, progress=False)
    assert torch.allclose(other[0], found[0], atol=1e-6)
    assert not torch.allclose(other[1], found[1], atol=1e-3)


@pytest.mark.parametrize("taken", [False, True])
def test_labels_are_doubted_as_if_some_were_wrong_only_where_it_is_worth_it(
    taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "no_worse", lambda *_: taken)
    trial, _ = first_round()
    trial.kept.y[:3] = (trial.kept.y[:3] + 1) % 3
    chosen = choose_among(trial, 0, progress=False)
    known = list(trial.made)
    found = go_on(trial, chosen, None, True, 0, False)
    trial.made = known
    said = said_of_held_out(trial)
    wanted, _ = explained(said, trial.kept.y, trial.tested, expected=taken)
    assert found.doubts is not None
    assert torch.allclose(found.doubts.shares, wanted)
    assert ("labels weighed" in found.chosen.name) == taken


def test_with_two_examples_of_a_class_labels_are_not_weighed() -> None:
    every = colours(24)
    some = every.subset([i for i in range(24) if every.targets[i] != 2 or i in (2, 5)])
    metrics = run({"train": some, "val": colours(6, 4)}, val_apart=True, noisy=True).metrics
    notes = metrics["data"]["notes"]
    assert "labels could not be weighed: a class has fewer than three examples" in notes


def test_labels_count_as_they_are_believed_and_no_class_is_given_up() -> None:
    labels = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 1]), 2).double()

    found = believed(labels, torch.tensor([0.9, 0.1, 0.01, 0.01]).double())
    assert torch.allclose(found[:2, 0], torch.tensor([0.9, 0.1]).double())
    assert float(found[:, 1].sum()) == pytest.approx(2 * LEAST)


def test_where_nothing_can_be_held_out_it_says_so() -> None:
    trial, _ = first_round(3)
    assert not trial.folds
    chosen = choose_among(trial, 0, progress=False)
    found = go_on(trial, chosen, colours(6, 3), True, 0, False)
    assert found.chosen is chosen
    assert found.doubts is None
    assert len(found.notes) == 2


# through vpt.adapt ----------------------------------------------------------------------
def run(source: object, **options: object) -> vpt.Result:
    return vpt.adapt(source, open_tiny("timm ViT"), progress=False, **options)


def test_a_folder_without_labels_is_learned_from_and_said(tmp_path: Path) -> None:
    pictures(tmp_path / "data/train", colours(18))
    pictures(tmp_path / "data/test", colours(12, 2))
    more = pictures(tmp_path / "more", colours(30, 3), flat=True)
    result = run(tmp_path / "data", unlabelled=more, out=tmp_path / "run")
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert "30 examples without labels" in metrics["data"]["notes"]
    assert any("log loss out of fold" in note for note in metrics["data"]["notes"])
    names = [row["candidate"] for row in metrics["chosen"]["table"]]
    assert "queries:4, unlabelled too" in names
    assert names.count("queries:4, unlabelled too") == 1  # the last of the rounds
    assert (
        metrics["test_accuracy"]
        == vpt.evaluate(
            vpt.load(tmp_path / "run", result.model.close() and open_tiny("timm ViT")),
            vpt.load_data(tmp_path / "data", open_tiny("timm ViT").inputs, progress=False).test,
        )["accuracy"]
    )


def test_what_is_there_already_is_left_out(tmp_path: Path) -> None:
    pictures(tmp_path / "data/train", colours(18))
    test = pictures(tmp_path / "data/test", colours(12, 2))
    more = pictures(tmp_path / "more", colours(30, 3), flat=True)
    for i, path in enumerate(sorted(test.rglob("*.png"))[:4]):
        (more / f"copy{i}.png").write_bytes(path.read_bytes())
    (more / "twin.png").write_bytes((more / "0.png").read_bytes())
    metrics = run(tmp_path / "data", unlabelled=more).metrics
    notes, careful = metrics["data"]["notes"], metrics["data"]["careful"]
    assert "4 unlabelled files are among the test data" in careful[0]
    assert any("copies of others, and are left out: 1" in note for note in notes)
    assert "30 examples without labels" in notes
    with pytest.raises(DataError, match="Found no unlabelled example that is not among"):
        run(tmp_path / "data", unlabelled=test)
    # a picture that is handed over is known by what it shows
    opened = [Image.open(path) for path in sorted([*test.rglob("*.png"), *more.glob("*.png")])]
    data = run(tmp_path / "data", unlabelled=opened).metrics["data"]
    assert "16 unlabelled files are among the test data" in data["careful"][0]
    assert "30 examples without labels" in data["notes"]
    with pytest.raises(DataError, match="Found nothing without labels"):
        run(tmp_path / "data", unlabelled=[])


def test_folders_that_would_be_read_as_something_else_are_refused(tmp_path: Path) -> None:
    flat = pictures(tmp_path / "flat", colours(18))
    pictures(flat / "unsorted", colours(9, 3), flat=True)
    with pytest.raises(DataError, match="unsorted is read as the class 'unsorted'"):
        run(flat, unlabelled=flat / "unsorted")
    pictures(tmp_path / "data", colours(18))
    more = pictures(tmp_path / "more", colours(9, 3), flat=True)
    with pytest.raises(TrainingError, match="lies inside the data"):
        run(tmp_path / "data", unlabelled=more, out=more / "run")


def test_bad_files_are_named_before_anything_is_learned(tmp_path: Path) -> None:
    pictures(tmp_path / "data/train", colours(18))
    more = pictures(tmp_path / "more", colours(6, 3), flat=True)
    (more / "bad.png").write_bytes(b"no picture")
    with pytest.raises(BadFilesError, match=r"bad\.png"):
        run(tmp_path / "data", unlabelled=more)
    metrics = run(tmp_path / "data", unlabelled=more, skip_bad=True).metrics
    assert any(name.endswith("bad.png") for name, _ in metrics["skipped"])
    mixed = [Image.new("RGB", (32, 32), "red"), *more.iterdir()]
    with pytest.raises(BadFilesError, match=r"bad\.png"):
        run(tmp_path / "data", unlabelled=mixed)
    metrics = run(tmp_path / "data", unlabelled=mixed, skip_bad=True).metrics
    assert any(name.endswith("bad.png") for name, _ in metrics["skipped"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="Found no pictures"):
        run(tmp_path / "data", unlabelled=tmp_path / "empty")


def test_of_many_a_sample_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unlabelled, "MOST", 10)
    metrics = run({"train": colours(18)}, unlabelled=colours(30, 3), seed=4).metrics
    assert (
        "of 30 unlabelled examples 10, drawn with seed 4, are learned from"
        in (metrics["data"]["notes"])
    )


def test_without_a_place_for_keys_and_values_probes_learn_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial, _ = first_round()
    memory = trial.kept.memories.values()
    full = sum(one.keys.nbytes + one.values.nbytes for one in memory)
    each = full // 2 // len(trial.kept.y)  # in half precision
    monkeypatch.setattr(rounds, "alike", lambda known, others, together: torch.ones(len(others)))
    for budget, queries, said in ((full + 6 * each, True, "6"), (full, False, "9")):
        monkeypatch.setattr(rounds, "BUDGET", budget)
        trial, _ = first_round()
        chosen = choose_among(trial, 0, progress=False)
        found = go_on(trial, chosen, colours(9, 3), False, 0, False)
        names = [row["candidate"] for row in found.chosen.table]
        assert any(name.startswith("queries:4,") for name in names) == queries
        assert any(name.startswith("probe") and "unlabelled" in name for name in names)
        assert found.notes[-1].startswith(f"{said} examples without labels")


def test_what_is_unlike_any_labelled_example_is_left_out() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 16, generator=generator)
    near = centres[torch.arange(30) % 3] + 0.1 * torch.randn(30, 16, generator=generator)
    far = torch.randn(10, 16, generator=generator)
    found = alike(near, torch.cat([near + 0.02, far]))
    assert int(found[:30].sum()) >= 28
    assert not found[30:].any()
    # twins of labelled examples, which belong together, do not say how near others have to be
    twice, units = torch.cat([near, near]), [*range(30), *range(30)]
    fresh = centres[torch.arange(30) % 3] + 0.1 * torch.randn(30, 16, generator=generator)
    assert not alike(twice, fresh).any()
    assert int(alike(twice, fresh, units).sum()) >= 25


def test_a_folder_of_other_things_is_not_learned_from() -> None:
    trial, _ = first_round()
    chosen = choose_among(trial, 0, progress=False)
    stripes = torch.zeros(20, 3, 32, 32)
    stripes[:, :, ::2] = 1
    others = Examples(list(stripes).__getitem__, [0] * 20, ["unknown"])
    found = go_on(trial, chosen, others, False, 0, False)
    assert found.chosen is chosen
    assert found.notes == [
        "0 examples without labels (20 others are unlike any labelled one): too few, so they are"
        " not used"
    ]


def test_wrong_labels_are_listed_and_weighed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "no_worse", lambda *_: True)
    clean = colours(90)
    told = clean.targets
    wrong = range(0, 90, 7)
    for i in wrong:
        told[i] = (told[i] + 1) % 3
    noisy = Examples(clean.get, told, clean.classes)
    metrics = run({"train": noisy, "test": colours(15, 2)}, noisy=True, out=tmp_path).metrics
    assert any(note.startswith("labels by how far") for note in metrics["data"]["notes"])
    listed = {row["file"] for row in metrics["suspects"]["examples"]}
    assert metrics["suspects"]["n"] == 90
    assert len({noisy.name(i) for i in wrong} & listed) >= 1
    assert all(row["likely"] != row["label"] for row in metrics["suspects"]["examples"])
    assert "Labels to look at" in (tmp_path / "report.html").read_text()


def test_a_class_whose_labels_are_all_wrong_is_named_and_stays() -> None:
    clean = colours(60)
    told = [y if y != 2 else 0 for y in clean.targets]  # all blue ones are called red
    told[:9] = [2] * 9  # and what is called blue is of all kinds
    metrics = run({"train": Examples(clean.get, told, clean.classes)}, noisy=True).metrics
    assert metrics["suspects"]["n"] == 48  # a fifth is held out to test
    assert metrics["classes"] == ["red", "green", "blue"]


def test_what_goes_with_auto_only_is_refused_elsewhere() -> None:
    with pytest.raises(TrainingError, match="noisy, unlabelled"):
        vpt.adapt(
            {"train": colours(12)},
            open_tiny("timm ViT"),
            "deep:2",
            unlabelled=colours(3),
            noisy=True,
        )
