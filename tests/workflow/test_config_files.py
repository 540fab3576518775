"""Snakemake's configuration files, which it reads by itself."""

import pytest
from snakemake.common.configfile import load_configfile

from harness.study.typed import ROOT
from harness.workflow import config


class StoppedError(Exception):
    pass


@pytest.fixture(autouse=True)
def _stops(monkeypatch):
    def stop(message):
        raise StoppedError(message)

    monkeypatch.setattr(config, "stop", stop)


def test_the_projects_own_file_is_read_alike_by_both():
    config.check_files([ROOT / "harness" / "rules" / "config.yaml"], load_configfile)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study: digits\nseeds: [0]\nstudy: smoke\n", r"mine\.yaml, line 3: not valid YAML: 'study' stands there twice, first in line 1"),
        ("seeds: [010]\n", r"mine\.yaml: seeds: Snakemake reads \[8\] where \[10\] is written"),
        ("study: yes\n", r"mine\.yaml: study: Snakemake reads True where 'yes' is written"),
        ("- study\n", "expected a mapping of settings"),
    ],
)
def test_a_file_that_snakemake_would_take_for_another_is_one_line(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(StoppedError, match=message) as caught:
        config.check_files([tmp_path / "mine.yaml"], load_configfile)
    assert "\n" not in str(caught.value)
