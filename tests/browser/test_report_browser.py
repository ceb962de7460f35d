"""The HTML report in Chromium, as a person goes through it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from harness.store import result
from support import page_runs, runs

WAIT_S = 60


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The address of the report of a run with unexplained findings."""
    folder = tmp_path_factory.mktemp("run")
    run = page_runs.red_run(folder)
    return page_runs.write_html(run, folder, folder / "report.html")


def go(browser, address):
    """Open ``address`` from nothing, as from a mail."""
    browser.get("about:blank")
    browser.get(address)


def wait_for(browser, css):
    """The first element like ``css`` that is shown, once it is."""

    def shown(driver):
        return next(
            (e for e in driver.find_elements(By.CSS_SELECTOR, css) if e.is_displayed()), None
        )

    return WebDriverWait(browser, WAIT_S).until(shown)


def errors(browser):
    return [each["message"] for each in browser.get_log("browser") if each["level"] == "SEVERE"]


def test_red_cell_leads_to_the_finding_and_its_first_divergent_event(
    browser, page, requests, picture
):
    go(browser, page)
    picture("overview")
    red = wait_for(
        browser, f'#heat td.heat-bad a[aria-label^="{page_runs.LINUX} on lab-kvm-split"]'
    )
    red.click()

    heading = wait_for(browser, "#shown h1")
    assert "block-intx handled/ioapic/20:virtio0" in heading.text
    here = wait_for(browser, "#first-event")
    assert [cell.text for cell in here.find_elements(By.TAG_NAME, "td")] == [
        "▶",
        "0x8400",
        "0x8500",
    ]
    events = browser.find_elements(By.CSS_SELECTOR, "table.events tr.here code")
    assert [event.text for event in events] == [
        "kvm_apic: apic_write APIC_LVT1 = 0x8400",
        "kvm_apic: apic_write APIC_LVT1 = 0x8500",
    ]
    chips = browser.find_elements(By.CSS_SELECTOR, ".sides table.chips")
    assert ["LAPIC 0" in each.text for each in chips] == [True, True]
    wait_for(browser, ".chart canvas")
    picture("finding")
    browser.execute_script("arguments[0].scrollIntoView()", here)
    picture("first-divergent-event")
    assert [url for url in requests() if not url.startswith(("file:", "data:", "blob:"))] == []
    assert errors(browser) == []


def test_red_cell_of_a_scenario_leads_to_the_first_line_that_differs(browser, page, picture):
    go(browser, page)
    wait_for(browser, '#heat td.heat-bad a[aria-label^="probe-ioapic"]').click()

    here = wait_for(browser, "#first-event")
    assert "nothing" in here.text
    assert "irq 0x51" in here.text
    state = wait_for(browser, 'table[data-state="log"]')
    assert state.text.count("ISR 0x51") >= 1
    picture("scenario")


def test_case_page_has_funnel_counters_console_and_command(browser, page, picture):
    go(browser, page)
    wait_for(browser, f'#heat td a[aria-label^="{page_runs.LINUX} on local-tcg"]').click()

    assert wait_for(browser, "#shown h1").text == f"{page_runs.LINUX}/local-tcg"
    rows = browser.find_elements(By.CSS_SELECTOR, "table.funnel-table tbody tr")
    texts = [row.text for row in rows]
    assert "vector 236 cpu0 1855 810 1044 1044" in texts
    beside = wait_for(browser, ".wide[aria-label^='verdicts and counters']").text
    assert "lab-kvm-split" in beside
    assert "ioapic 20:virtio0 [guest]" in beside
    assert "Linux version 6.1" in wait_for(browser, "pre.console").text
    assert "qemu-system-x86_64" in wait_for(browser, "pre.command").text
    picture("case")


def test_hostile_console_is_text(browser, page):
    go(browser, page + "#case-9")
    console = wait_for(browser, "pre.console").text

    assert "<script>document.title='owned'</script>" in console
    assert "\\x1b[2J\\u202e" in console
    assert browser.title != "owned"
    assert browser.find_elements(By.CSS_SELECTOR, "#shown img") == []


def test_back_leads_to_where_one_came_from(browser, page):
    go(browser, page)
    wait_for(browser, "#heat tbody th a").click()
    wait_for(browser, "#shown h1")
    browser.back()
    assert wait_for(browser, "#overview h1").text == "golden"
    assert not browser.find_element(By.ID, "shown").is_displayed()


def test_keyboard_alone_leads_to_a_finding(browser, page):
    go(browser, page)
    wait_for(browser, "#heat")
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "Skip to the content"
    first = browser.find_element(By.CSS_SELECTOR, "#heat td a")
    browser.execute_script("arguments[0].focus()", first)
    first.send_keys(Keys.ARROW_RIGHT)
    first = browser.switch_to.active_element
    first.send_keys(Keys.ARROW_DOWN)
    chosen = browser.switch_to.active_element
    assert chosen.get_attribute("aria-label").split(":")[0].endswith("on lab-kvm-split")
    chosen.send_keys(Keys.ENTER)
    heading = wait_for(browser, "#shown h1")
    assert browser.switch_to.active_element == heading
    said = browser.find_element(By.ID, "status").get_attribute("textContent")
    assert " ".join(said.split()) == browser.title


def test_page_says_to_a_screen_reader_what_everything_is(browser, page):
    unnamed = """
        const named = (e) => e.getAttribute("aria-label") || e.getAttribute("aria-hidden")
            || e.closest("[aria-hidden]") || e.textContent.trim();
        return [...document.querySelectorAll("a, button, svg, [role=region], section")]
            .filter((e) => !named(e)).map((e) => e.outerHTML);"""
    loose = """
        const loose = document.querySelectorAll("th:not([scope]):not(.chart th)");
        return [...loose].map((e) => e.outerHTML);"""
    for fragment in ("", "#finding-0", "#finding-1", "#case-11", "#subject-0"):
        go(browser, page + fragment)
        wait_for(browser, "#shown h1" if fragment else "#overview h1")
        assert browser.execute_script(unnamed) == []
        assert browser.execute_script(loose) == []
        assert len([e for e in browser.find_elements(By.TAG_NAME, "h1") if e.is_displayed()]) == 1
    assert browser.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"


def test_dark_and_light_are_a_button_apart(browser, page, picture):
    go(browser, page)
    button = wait_for(browser, "#theme")
    colours = []
    for _ in range(2):
        button.click()
        style = "return getComputedStyle(document.body).backgroundColor"
        colours.append((button.get_attribute("aria-pressed"), browser.execute_script(style)))
        picture(f"dark-{colours[-1][0]}")
    assert dict(colours) == {"true": "rgb(13, 17, 23)", "false": "rgb(255, 255, 255)"}


def test_page_that_is_printed_has_white_paper_and_whole_consoles(browser, page):
    go(browser, page + "#case-9")
    wait_for(browser, "pre.console")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
        assert browser.execute_script(style, "pre.console", "maxHeight") == "none"
        assert browser.execute_script(style, "#theme", "display") == "none"
        assert browser.print_page()
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


KILLED = replace(runs.run_of(runs.GOOD), environment={"finished": None})
EDGES = {
    "empty": (runs.run_of(), "The run has no cases."),
    "one case": (runs.run_of(runs.GOOD), "1 case, as expected"),
    "only skips": (runs.run_of(runs.SKIPPED), "no /dev/kvm"),
    "killed": (KILLED, "The run did not end"),
    "everything": (runs.EVERYTHING, "ran nowhere"),
}


@pytest.mark.parametrize("name", EDGES)
def test_run_without_much_to_show_has_a_sensible_page(browser, tmp_path, name):
    run, text = EDGES[name]
    result.write(run, tmp_path / "result.json")
    go(browser, page_runs.write_html(run, tmp_path, tmp_path / "page.html"))

    assert text in wait_for(browser, "#overview").text
    for number in range(len(run.cases)):
        browser.get((tmp_path / "page.html").as_uri() + f"#case-{number}")
        heading = wait_for(browser, f"#shown[data-page='case-{number}'] h1")
        assert heading.text == run.cases[number].id
    assert errors(browser) == []
