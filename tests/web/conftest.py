"""A served page, a real browser, and code of a user to search."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

CODE = """
import os, time
from darts_core import autosearch

def train():
    lr, width = autosearch.config["lr"], autosearch.config["width"]
    for step in range(int(os.environ.get("WEB_TEST_STEPS", "6"))):
        value = (0.9 - abs(lr - 0.3) * 0.4 + 0.002 * width) * (1 - 0.7 ** (step + 1))
        autosearch.reporter(accuracy=value, latency_ms=0.1 * width + 1)
        time.sleep(0.15)
    print("trained with", lr, width)
    open(os.path.join(autosearch.output_dir, "m.bin"), "w").write(str(lr))
    autosearch.report(value, latency=0.1 * width + 1, model_path="m.bin")
"""
JOB = """general: {confirm_seeds: 2}
search_space:
  - params:
      - {type: discrete_param, name: lr, values: [0.1, 0.3, 0.6, 0.9], default: 0.9}
      - {type: discrete_param, name: width, values: [8, 16], default: 8}
search_algorithm:
  type: grid_search
  objectives:
    - {metric: accuracy, mode: max}
    - {metric: latency_ms, mode: min}
"""
PICTURES = os.environ.get("WEB_PICTURES")
# in one step of the page's own: between a mouse's down and up the live script may exchange the button
_PRESS = """
const button = arguments[0];
button.scrollIntoView({block: 'center'});
const box = button.getBoundingClientRect();
const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
if (!button.contains(top)) return false;
button.click();
return true;
"""


class Page:
    """The browser at the served page, and the folders behind it."""

    def __init__(self, driver, base, token, place):
        self.driver, self.base, self.token, self.place = driver, base, token, place
        self.left = None  # the address where a button was pressed last

    @property
    def runs(self):
        return self.place / "runs"

    def open(self, path):
        self.driver.get(f"{self.base}{path}")

    def text(self):
        return self.driver.find_element("css selector", "body").text

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def every(self, selector):
        return self.driver.find_elements("css selector", selector)

    def fill(self, name, value):
        field = self.find(f"[name={name}]")
        field.clear()
        field.send_keys(value)

    def press(self, label):
        """Press the button or follow the link that is called `label`."""

        def pressed():
            found = self._called(label)
            if not found:
                return False
            self.left = self.driver.current_url
            return self.driver.execute_script(_PRESS, found[0])

        self.until(pressed, f"a button {label!r}")

    def _called(self, label):
        found = [b for b in self.every("button, a, summary") if b.text.strip() == label]
        return [b for b in found if b.is_displayed()]

    def until(self, condition, what, seconds=900):
        """Wait for something to become true; how long it takes decides nothing."""
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except WebDriverException:
                pass  # the page is being exchanged
            assert time.monotonic() < end, f"waited in vain for {what}:\n{self.text()[:3000]}"
            time.sleep(0.1)

    def succeeded(self):
        """Wait for the page of the command that was started, and until it has ended well."""
        states = []

        def ended():
            # one look: the page may be exchanged between two
            script = "return [location.href, document.body.dataset.state || 'running']"
            address, state = self.driver.execute_script(script)
            states.append(state)
            return "/actions/" in address and address != self.left and state != "running"

        self.until(ended, "the command's end")
        assert states[-1] == "succeeded", self.text()

    def picture(self, name):
        """Keep a picture of the page where WEB_PICTURES names a folder."""
        if PICTURES:
            self.driver.save_screenshot(str(Path(PICTURES) / f"web-{name}.png"))


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    (folder / "project").mkdir()
    (folder / "project" / "train.py").write_text(CODE)
    (folder / "job.yaml").write_text(JOB)
    return folder


@pytest.fixture(scope="session")
def server(place):
    # a folder of its own, so that a relative path of a command leaves nothing elsewhere
    started = subprocess.Popen(
        [sys.executable, "-m", "darts_core.cli", "web", "--port", "0", "--code", str(place)],
        cwd=place, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    started.stdout.readline()
    address = started.stdout.readline().split()[1]
    base, _, token = address.partition("/?token=")
    yield base, token
    started.terminate()
    started.wait(30)


@pytest.fixture(scope="session")
def driver():
    selenium = pytest.importorskip(
        "selenium.webdriver", reason="selenium is not installed (make test-web)"
    )
    from selenium.webdriver.chrome.service import Service

    browser, steering = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or steering is None:
        pytest.skip("chromium and chromium-driver are not installed")
    options = selenium.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(word)
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = selenium.Chrome(options=options, service=Service(steering))
    found.set_page_load_timeout(120)
    yield found
    found.quit()


@pytest.fixture
def page(server, driver, place):
    base, token = server
    driver.set_window_size(1240, 1000)
    driver.get(f"{base}/?token={token}")
    yield Page(driver, base, token, place)
    said = [e for e in driver.get_log("browser") if "favicon" not in e["message"]]
    assert said == [], "the console of the browser is not silent"
