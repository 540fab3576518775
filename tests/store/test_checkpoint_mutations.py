"""Over 500 checkpoints through the readers that people use: each is read to the right value, or refused in one line with exit code 2."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from checkpoints import AS_WRITTEN, REFUSED, RIGHT, cases, exact
from toy import toy_values

from harness.cli import main as cli
from harness.decoder.registry import decoder_of
from harness.denoiser.build import build_denoiser
from harness.store import artifacts, assets
from harness.store.tensors import load_tensors
from harness.study.study import load_study, parse_study
from harness.study.typed import UserError, merge


def different_bits(one, other):
    """Of two tensors of the same type and shape."""
    bytes_of = [value.contiguous().reshape(-1).view(torch.uint8) for value in (one, other)]
    return sum(int(byte).bit_count() for byte in (bytes_of[0] ^ bytes_of[1]).tolist() if byte)


class Import:
    """`dsr import` of the smoke study's denoiser."""

    def __init__(self, monkeypatch, capsys):
        self.monkeypatch, self.capsys = monkeypatch, capsys
        self.shapes = build_denoiser(load_study("smoke"), "baseline").state_dict()

    def __call__(self, path, case, out):
        """(its tensors or None, what it says)."""
        named = ["--container", case.container] if case.container else []
        self.monkeypatch.setattr(sys, "argv", ["dsr", "import", str(path), "--study", "smoke", "--out", str(out), *named])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed, err = self.capsys.readouterr()
        assert ended.value.code == (2 if not printed else 0)
        return load_tensors(out)[0] if printed else None, err


class DecoderStage:
    """Stages `asset` and `decoder`, of a toy study that takes a published decoder."""

    def __init__(self):
        self.values = toy_values("imagenet256_siglip2_b")
        self.shapes = self.kind().build().state_dict()

    def kind(self, **asset):
        released = {"plain": {"path": "x.pt", "source": "toy", **asset}}
        self.study = parse_study("toy", merge(self.values, {"decoder": {"released": released}}))
        return decoder_of(self.study)

    def __call__(self, path, case, out):
        kind = self.kind(path=path.name, container=case.container, sha256=case.sha256)
        record = path.parent / "decoder.released.plain.json"
        files = dict.fromkeys(("data", "latents", "state"), path.parent) | dict.fromkeys(("backbone", "registers"))
        try:
            assets.record_asset(self.study, name=record.stem, assets=path.parent, out=record)
            kind.make(encoder="plain", records=[record], out=out, **files)
        except UserError as error:
            return None, f"error: {error}\n"
        finally:
            record.unlink(missing_ok=True)
            artifacts.sidecar(record).unlink(missing_ok=True)
        return load_tensors(out)[0], ""


def outcome(case, reader, average, folder):
    """What came of a case: `right`, `refused`, or `as written`; fails where it was none that is allowed."""
    path, out = folder / case.name, folder / "out.safetensors"
    if isinstance(case.content, Path):
        path.symlink_to(case.content)
    else:
        path.write_bytes(case.content if isinstance(case.content, bytes) else case.content())
    tensors, err = reader(path, case, out)
    for file in (path, out, artifacts.sidecar(out)):
        file.unlink(missing_ok=True)
    assert [*folder.iterdir()] == []
    if tensors is None:
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert case.allowed != RIGHT, err
        return "refused"
    assert case.allowed != REFUSED
    assert tensors.keys() == average.keys()
    if all(torch.equal(tensors[name].to(average[name].dtype), average[name]) for name in average):
        return "right"
    assert case.allowed == AS_WRITTEN
    assert sum(different_bits(tensors[name], average[name]) for name in average) == 1
    return "as written"


@pytest.mark.parametrize("some", [pytest.param(12, id="fifty"), pytest.param(1, id="all", marks=pytest.mark.slow)])
def test_a_checkpoint_is_read_right_or_refused_in_one_line(some, monkeypatch, capsys, tmp_path):
    readers = [Import(monkeypatch, capsys), DecoderStage()]
    made = [(reader, exact(reader.shapes, 0), exact(reader.shapes, 1)) for reader in readers]
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a folder"
    folder.mkdir()
    counted: Counter[tuple[str, str]] = Counter()
    for turn, (reader, average, raw) in enumerate(made):
        for index, case in enumerate(cases(average, raw)):
            if index % some == 0 and (index // some % 4 == 3 or case.sha256 is not None) == bool(turn):  # a quarter goes through the stages
                counted[case.kind, outcome(case, reader, average, folder)] += 1
    assert not (tmp_path / "executed").exists()
    total = Counter()
    for (_, what), count in counted.items():
        total[what] += count
    if some == 1:
        with capsys.disabled():
            kinds = dict.fromkeys(kind for kind, _ in counted)
            print(f"\n{sum(total.values())} checkpoints: {dict(total)}")
            for kind in kinds:
                print(f"  {kind}: " + ", ".join(f"{counted[kind, what]} {what}" for what in total if counted[kind, what]))
        assert sum(total.values()) >= 500
        assert total["right"] >= 200
    else:
        assert sum(total.values()) >= 50
        assert total["right"] >= 20
