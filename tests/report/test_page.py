"""The HTML page: whole, self-contained, every number linked to where it comes from; looked at in Chromium where that is installed."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pandas as pd
import pytest
from conftest import METHODS, SEEDS
from synthetic import FIDS, synthetic

from harness.report import hypotheses, page, specs
from harness.report.page import render_page
from harness.report.sheets import DIGITS, sheet_id
from harness.results.scores import scores_of
from harness.results.views import plain_view
from harness.study.method import method_names
from harness.study.study import load_study
from harness.study.typed import ROOT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=")
VOID = {"meta", "link", "br", "img", "line", "rect", "circle"}


def rendered(study, rows, seeds=(0, 1, 2), methods=METHODS, figures=None):
    given = {
        "spec": specs.load_table("table1"),
        "declared": hypotheses.load_claims(ROOT / "reports" / "claims.yaml"),
    }
    return page.page_html(study, rows, methods, list(seeds), figures=figures or {"samples": PNG}, **given)


class Page(HTMLParser):
    """Elements with their attributes, and the text below each id."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts, self.unclosed = [], [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), [dict(a).get("id") for t, a in self.open]))
        if tag not in VOID:
            self.open.append((tag, attrs))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        last, _ = self.open.pop()
        if last != tag:
            self.unclosed.append((last, tag))

    def handle_data(self, data):
        for _, attrs in self.open:
            if name := dict(attrs).get("id"):
                self.texts[name] = self.texts.get(name, "") + data

    def of(self, tag):
        return [attrs for name, attrs, _ in self.elements if name == tag]


@pytest.fixture(scope="module")
def text(study):
    return rendered(study, synthetic())


@pytest.fixture(scope="module")
def parsed(text):
    return Page(text)


def test_the_markup_is_whole_and_every_link_leads_somewhere(parsed):
    assert not parsed.open
    assert not parsed.unclosed
    ids = [attrs["id"] for _, attrs, _ in parsed.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {attrs["href"] for attrs in parsed.of("a")}
    assert targets - {"#-"} <= {f"#{name}" for name in ids}


def test_nothing_comes_from_elsewhere_and_nothing_runs(text, parsed):
    assert not parsed.of("script")
    assert not parsed.of("iframe")
    addresses = [attrs[name] for _, attrs, _ in parsed.elements for name in ("src", "href", "srcset", "action") if name in attrs]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"url\(|@import|https?:|javascript:", text)
    assert not [name for _, attrs, _ in parsed.elements for name in attrs if name.startswith("on")]
    assert any("default-src 'none'" in attrs.get("content", "") for attrs in parsed.of("meta"))


def test_it_is_readable_without_sight_of_it(parsed):
    assert all(attrs.get("scope") in ("col", "row") for attrs in parsed.of("th"))
    assert all(attrs.get("alt") for attrs in parsed.of("img"))
    assert parsed.of("html") == [{"lang": "en"}]
    assert len(parsed.of("h1")) == 1
    assert all(attrs.get("aria-label") for attrs in parsed.of("svg"))


def test_every_number_of_the_tables_opens_its_sheet(text):
    body = text[text.index('<section id="tables"') : text.index('<section id="claims"')]
    cells = re.findall(r"<td>(.*?)</td>", body, re.S)
    numbers = [cell for cell in cells if re.search(r"\d", re.sub(r"<[^>]*>", "", cell))]
    assert len(numbers) > 40
    assert all(re.match(r'<a href="#[a-z]', cell) for cell in numbers)


def test_a_sheet_has_the_values_and_hashes_of_its_rows(study, parsed):
    rows = synthetic()
    for (score, method), group in rows.groupby(["score", "method"]):
        sheet = parsed.texts[sheet_id(score, method)]
        assert f"--method {method} --score {score}" in sheet
        for row in group.to_dict("records"):
            assert repr(row["value"]) in sheet
            for field in ("reference", "extractor", "encoder", "registers", "latents", "decoder", "denoiser", "samples"):
                assert row[field][:DIGITS] in sheet
            assert all(row[field] in sheet for field in ("commit", "code", "config", "precision", "versions", "device", "how"))


def test_a_difference_has_both_values_of_each_seed(parsed):
    sheet = parsed.texts["difference-fid-dsr"]
    for value in ("0.5", "1.0", "-0.5", "0.61", "1.1", "0.41", "0.9"):
        assert value in sheet


def test_another_average_has_its_own_sheet(study):
    decay = study.sampling.averages[0]
    rows = pd.concat([synthetic(), synthetic(scores=["fid"], ema=decay)])
    sheet = Page(rendered(study, rows)).texts[sheet_id("fid", "dsr", ema=decay)]
    assert f"--ema {decay:g}" in sheet


def test_a_run_without_a_value_has_a_footnote_and_its_reason_is_text(study):
    reason = "at step 7 <b>& then</b> 'stopped'"
    rows = synthetic(failed={("dsr", 1, "fid"): ("diverged", reason)})
    text = rendered(study, rows)
    assert "<b>" not in text
    page = Page(text)
    assert reason in page.texts["note-1"]
    assert reason in page.texts["fid-dsr"]
    assert "Not every seed has a value" in page.texts["fid-dsr"]


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_same_rows_give_the_same_bytes_whatever_the_order_of_other_rows(study, seeds):
    rows = synthetic(seeds=seeds)
    extra = synthetic(fids={"ttr": [1.0, 1.0, 1.0]}, seeds=seeds)
    assert rendered(study, rows, seeds) == rendered(study, pd.concat([rows, extra]), seeds)


def test_the_papers_values_stand_beside_the_measured_ones_which_open():
    study = load_study("imagenet256_siglip2_b")
    rows = synthetic(dict.fromkeys(study.methods, FIDS["dsr"]), study=study.name, scores=scores_of(study), **plain_view(study)._asdict())
    text = rendered(study, rows, methods=study.methods)
    panel = text[text.index(">Paper beside measured</h2>") : text.index('<section id="claims"')]
    assert len(re.findall(r'<td><a href="#fid-[a-z]', panel)) >= len(study.methods)
    page = Page(text)
    assert {attrs["href"] for attrs in page.of("a")} - {"#-"} <= {f"#{attrs.get('id')}" for _, attrs, _ in page.elements}


def test_verdicts_are_words_as_well_as_colours(parsed, text):
    badges = re.findall(r'class="badge ([a-z-]+)"><span aria-hidden="true">.</span>([a-z ]+)<', text)
    assert badges
    assert all(name == word.replace(" ", "-") for name, word in badges)


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return sum(
        w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for w, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True)
    )


@pytest.mark.parametrize("theme", [0, 1])
def test_text_has_the_contrast_that_reading_needs(text, theme):
    block = re.findall(r":root \{(.*?)\}", text, re.S)[theme]
    colours = {name: value * 2 if len(value) == 3 else value for name, value in re.findall(r"--([a-z-]+): #([0-9a-f]+);", block)}
    pairs = [(ink, ground) for ink in ("ink", "soft", "link") for ground in ("paper", "card", "tint")]
    pairs += [(name, f"{name}-tint") for name in ("yes", "no", "open", "none")]
    for ink, ground in pairs:
        high, low = sorted((luminance(f"#{colours[ink]}"), luminance(f"#{colours[ground]}")), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)


def test_it_is_written_from_a_results_folder_with_the_figures_that_are_there(study, runs, tmp_path):
    (tmp_path / "fid.png").write_bytes(PNG)
    where = {"methods": METHODS, "seeds": SEEDS, "results": runs.root}
    assert render_page(study, out=tmp_path / "index.html", **where)["figures"] == ["fid"]
    render_page(study, out=tmp_path / "again.html", **where)
    content = (tmp_path / "index.html").read_bytes()
    assert content == (tmp_path / "again.html").read_bytes()
    assert str(runs.root).encode() not in content
    assert str(ROOT).encode() not in content


def test_local_paths_are_cut_down():
    value = {"/home/me/results/a.json": ["/data/x/weights.pt", "C:\\data\\y.pt", "imagenet/train", "~/z", "1/2", 3, None, "a\n/b"]}
    assert page.without_places(value) == {"a.json": ["weights.pt", "y.pt", "imagenet/train", "z", "1/2", 3, None, "a\n/b"]}


LOOK = """<!doctype html><title>look</title><body style="margin:0"><pre id="seen"></pre><script>
const seen = [];
function look(width) {
  return new Promise(done => {
    const frame = document.createElement('iframe');
    frame.style.cssText = `width:${width}px;height:900px;border:0`;
    frame.onload = () => {
      const doc = frame.contentDocument, view = frame.contentWindow, one = {width};
      one.overflow = doc.documentElement.scrollWidth - doc.documentElement.clientWidth;
      one.resources = view.performance.getEntriesByType('resource').map(e => e.name.slice(0, 5));
      const open = () => [...doc.querySelectorAll('.sheet')].filter(s => view.getComputedStyle(s).display !== 'none').map(s => s.id);
      one.before = open();
      const link = doc.querySelector('#tables td a');
      one.wanted = link.getAttribute('href').slice(1);
      link.click();
      setTimeout(() => {
        one.after = open();
        const sheet = doc.getElementById(one.wanted), box = sheet.lastElementChild.getBoundingClientRect();
        one.inside = box.left >= 0 && box.right <= width && box.height > 100;
        one.overflowing = doc.documentElement.scrollWidth - doc.documentElement.clientWidth;
        sheet.querySelector('.close').click();
        setTimeout(() => { one.closed = open(); seen.push(one); done(); }, 100);
      }, 100);
    };
    frame.src = 'index.html';
    document.body.appendChild(frame);
  });
}
look(1280).then(() => look(400)).then(() => { document.getElementById('seen').textContent = JSON.stringify(seen); });
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_in_a_browser_it_fits_and_its_numbers_open(study, tmp_path, seeds):
    failed = {("dsr", 0, "fid"): ("diverged", "11 steps whose loss was not finite; the last was step 812, at a learning rate of 0.008")}
    fids = dict.fromkeys(method_names(), FIDS["dsr"])
    rows = pd.concat(
        [synthetic(fids, seeds, failed=failed), *(synthetic(fids, seeds, scores=["fid"], ema=e) for e in study.sampling.averages)]
    )
    (tmp_path / "index.html").write_text(rendered(study, rows, seeds, method_names()), encoding="utf-8")
    (tmp_path / "look.html").write_text(LOOK, encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}", "--allow-file-access-from-files",
        "--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", f"file://{tmp_path / 'look.html'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    seen = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout)
    assert seen, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr
    for one in json.loads(seen[1]):
        assert one["overflow"] <= 0, one
        assert one["overflowing"] <= 0, one
        assert set(one["resources"]) <= {"data:"}, one
        assert one["before"] == one["closed"] == [], one
        assert one["after"] == [one["wanted"]], one
        assert one["inside"], one
