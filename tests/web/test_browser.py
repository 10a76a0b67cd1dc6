"""The live page in a real Chromium: each thing that a person does is checked on disk.

The tests of this file run in their order: a job is made, watched, stopped, resumed, compared, exported and
deleted.
"""

import json

import pytest

from darts_core.store.jobs import Store

pytestmark = pytest.mark.web


def state(page, job="mine", version="V001"):
    return Store(page.runs).version(job, version).state()


def rows(page, job="mine", version="V001"):
    return list((page.runs / job / version / "autosearch" / "trials").glob("*/result.json"))


def test_the_address_loses_its_token_and_an_empty_store_says_so(page):
    assert "token" not in page.driver.current_url
    assert page.driver.get_cookies()[0]["sameSite"] == "Strict"
    assert "There is no job yet" in page.text()


def test_a_job_is_made_from_a_template_after_a_dry_run(page):
    page.press("New job")
    page.press("grid")
    assert "learning_rate" in page.find("#f-file").get_attribute("value")
    page.fill("name", "mine")
    page.fill("description", "made in the browser")
    page.fill("boot_file", "train.py")
    page.find("[name=code]").clear()
    page.find("[name=code]").send_keys(str(page.place / "project"))
    page.fill("file", "")
    page.find("#f-upload").send_keys(str(page.place / "job.yaml"))
    page.picture("new")
    page.press("Dry run")
    page.succeeded()
    assert "Forecast: up to 8 trials" in page.text()
    assert "--dry-run" in page.find("pre.command").text
    # nothing was made yet
    assert not (page.runs / "mine").exists()
    page.picture("dry-run")
    page.press("Start this job")
    page.succeeded()
    assert Store(page.runs).job_record("mine")["description"] == "made in the browser"
    kept = list((page.runs / "mine" / "V001" / "config").glob("*.yaml"))
    assert "grid_search" in kept[0].read_text()


def test_the_page_fills_while_the_search_runs_and_stop_stops_it(page):
    page.open("/jobs/mine/V001")
    page.until(lambda: page.find("#live-state").text == "live", "the stream of events")
    page.driver.execute_script("window.mark = 1")
    page.until(
        lambda: len(page.every("#trials tbody tr")) >= 2 and page.every("#results svg"), "trials"
    )
    page.picture("live")
    # it was not loaded again: the script exchanged the parts
    assert page.driver.execute_script("return window.mark") == 1
    page.press("Stop")
    page.succeeded()
    assert state(page) == "stopped"
    assert "jobs --root=" in page.find("pre.command").text


def test_resume_finishes_it_and_keeps_the_trials(page):
    before = {
        path: path.read_bytes() for path in rows(page) if json.loads(path.read_text())["done"]
    }
    page.open("/jobs/mine/V001")
    page.press("Resume")
    page.succeeded()
    page.open("/jobs/mine/V001")
    page.until(lambda: page.find("body").get_attribute("data-state") == "succeeded", "the end", 900)
    assert state(page) == "succeeded"
    done = [path for path, text in before.items() if json.loads(text)["state"] == "done"]
    assert done, "none had ended before the stop"
    assert all(path.read_bytes() == before[path] for path in done)
    page.until(lambda: "against" in page.find("h1").text, "the headline")
    page.driver.set_window_size(1240, 2300)
    page.until(lambda: "Importance" in page.text(), "the importance")
    page.picture("version")


def test_the_list_shows_it_and_is_filtered_by_its_address(page):
    page.open("/")
    assert [a.text for a in page.every("td.name a")] == ["mine"]
    page.picture("jobs")
    page.fill("search", "nothing")
    page.press("Show")
    page.until(lambda: "No job matches" in page.text(), "the filtered list")
    assert "search=nothing" in page.driver.current_url


def test_a_trial_of_the_sorted_table_is_opened(page):
    page.open("/jobs/mine/V001?sort=width&page=1#trials")
    page.every("#trials tbody a")[0].click()
    page.until(lambda: page.find("h1").text.startswith("Trial "), "the trial's page")
    assert "trained with" in page.text()
    page.picture("trial")


def test_a_new_version_with_other_settings_and_both_compared(page):
    page.open("/jobs/mine/V001")
    page.press("New version")
    page.fill("settings", "search_algorithm.type=tpe_search\nsearch_algorithm.num_samples=3")
    page.press("Start the new version")
    page.until(
        lambda: page.find("body").get_attribute("data-state") != "running", "the command's end"
    )
    assert page.find("body").get_attribute("data-state") == "succeeded", page.text()
    page.until(lambda: state(page, version="V002") == "succeeded", "V002", 900)
    assert Store(page.runs).version("mine", "V002").record()["parent"] == "V001"
    page.open("/jobs/mine")
    for box in page.every("input[type=checkbox]"):
        box.click()
    # the rows are exchanged while nothing of them has the focus: what is marked stays so
    page.driver.execute_script("document.activeElement.blur()")
    Store(page.runs).version("mine", "V001").describe("described meanwhile")
    page.until(lambda: "described meanwhile" in page.text(), "the description")
    assert [box.is_selected() for box in page.every("input[type=checkbox]")] == [True, True]
    page.picture("job")
    page.press("Compare the marked versions")
    page.until(lambda: "Settings that differ" in page.text(), "the comparison")
    assert "tpe_search" in page.text()
    assert len(page.every("#compared svg[role=img]")) >= 2
    page.driver.set_window_size(1240, 1800)
    page.picture("compare")


def test_descriptions_parameters_and_the_best_model(page):
    page.open("/jobs/mine")
    page.fill("description", "described anew")
    page.press("Save the description")
    page.succeeded()
    assert Store(page.runs).job_record("mine")["description"] == "described anew"
    page.open("/jobs/mine/V001")
    page.press("Describe, save parameters, delete")
    page.fill("saved", "kept")
    page.press("Save")
    page.succeeded()
    assert (page.runs / ".params" / "kept" / "params.json").is_file()
    page.open("/params")
    assert "kept" in page.text()
    page.picture("params")
    page.open("/jobs/mine/V001")
    page.press("Export the best")
    page.succeeded()
    exported = page.runs / ".exports" / "mine" / "V001"
    assert any(path.name == "m.bin" for path in exported.rglob("*"))
    page.open("/jobs/mine/V001")
    assert any("m.bin" in a.text for a in page.every("#files a"))


def test_deleting_wants_the_name_and_takes_the_folder(page):
    page.open("/jobs/mine/V002")
    page.press("Describe, save parameters, delete")
    page.fill("typed", "something else")
    page.press("Delete")
    page.until(lambda: "nothing was deleted" in page.text(), "the refusal")
    # the answer is an error, and the browser's console says so
    assert any("400" in e["message"] for e in page.driver.get_log("browser"))
    assert (page.runs / "mine" / "V002").is_dir()
    page.open("/jobs/mine/V002")
    page.press("Describe, save parameters, delete")
    page.fill("typed", "mine/V002")
    page.press("Delete")
    page.succeeded()
    assert not (page.runs / "mine" / "V002").exists()
    assert (page.runs / "mine" / "V001").is_dir()


def test_everything_is_reached_with_the_keyboard_alone(page):
    """From the list to an action by Tab and Enter; the focus is seen; the first stop skips to the content."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def focus():
        return page.driver.switch_to.active_element

    def tab_to(text):
        for _ in range(60):
            ActionChains(page.driver).send_keys(Keys.TAB).perform()
            if (focus().text or focus().get_attribute("value") or "").strip() == text:
                outline = focus().value_of_css_property("outline-style")
                assert outline != "none", f"the focus on {text} is not seen"
                return
        raise AssertionError(f"Tab never came to {text}")

    page.open("/")
    ActionChains(page.driver).send_keys(Keys.TAB).perform()
    assert focus().text == "Skip to the content"
    tab_to("mine")
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    page.until(lambda: page.driver.current_url.endswith("/jobs/mine"), "the job's page")
    tab_to("V001")
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    page.until(lambda: page.driver.current_url.endswith("/V001"), "the version's page")
    tab_to("Describe, save parameters, delete")
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    tab_to("Save the description")
    # back into the text above the button
    ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    # in the place of what stands there
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).perform()
    ActionChains(page.driver).send_keys("by keyboard").perform()
    ActionChains(page.driver).send_keys(Keys.TAB, Keys.ENTER).perform()
    page.until(lambda: "/actions/" in page.driver.current_url, "the action's page")
    page.succeeded()
    assert Store(page.runs).version("mine", "V001").description == "by keyboard"


@pytest.mark.parametrize(
    "path", ["/", "/jobs/mine", "/jobs/mine/V001", "/new?template=tpe", "/params", "/actions",
             "/compare?version=mine/V001&version=mine/V001", "/jobs/mine/V001/log"],
)  # fmt: skip
def test_nothing_is_cut_off_at_400_pixels(page, path):
    page.driver.set_window_size(400, 900)
    page.open(path)
    width = page.driver.execute_script("return document.documentElement.scrollWidth")
    assert width <= 400
    if path in ("/", "/jobs/mine/V001"):
        page.picture("narrow-list" if path == "/" else "narrow")


def test_names_of_controls_are_read_out(page):
    """Every control has a name, every picture a title, every page one heading of the first level."""
    for path in ("/", "/jobs/mine", "/jobs/mine/V001", "/new?template=tpe", "/params"):
        page.open(path)
        unnamed = page.driver.execute_script(
            "return [...document.querySelectorAll('input:not([type=hidden]),select,textarea,button')]"
            ".filter(e => !(e.labels && e.labels.length) && !e.getAttribute('aria-label')"
            " && !e.textContent.trim()).map(e => e.outerHTML)"
        )
        assert unnamed == [], path
        untold = page.driver.execute_script(
            "return [...document.querySelectorAll('svg[role=img]')].filter(e => !e.querySelector('title')"
            "?.textContent.trim()).length"
        )
        assert untold == 0
        assert len(page.every("h1")) == 1
        assert page.driver.execute_script("return document.documentElement.lang") == "en"


def test_dark_mode_has_enough_contrast(page):
    """Text and its ground differ by 4.5 to 1 or more, light and dark."""
    script = """
    const lum = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => { x /= 255;
      return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
      return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
    const bad = [];
    for (const e of document.querySelectorAll('h1,h2,p,a,td,th,label,small,button,.state-word')) {
      if (!e.textContent.trim() || !e.offsetParent) continue;
      let g = e; while (g && getComputedStyle(g).backgroundColor === 'rgba(0, 0, 0, 0)') g = g.parentElement;
      const a = lum(getComputedStyle(e).color), b = lum(getComputedStyle(g || document.body).backgroundColor);
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (ratio < 4.5) bad.push(e.tagName + ' ' + e.textContent.trim().slice(0, 30) + ' ' + ratio.toFixed(2));
    }
    return bad;
    """
    for scheme in ("light", "dark"):
        page.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        for path in ("/", "/jobs/mine/V001", "/new"):
            page.open(path)
            assert page.driver.execute_script(script) == [], (scheme, path)
        if scheme == "dark":
            page.open("/jobs/mine/V001")
            page.picture("dark")
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
