//! The page says what the results say, to a reader of its source and to a reader in a browser.
//!
//! The tests in a browser need Chromium. Where there is none they say so and check nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bench::report::page::render;
use serde_json::Value;
use tempfile::TempDir;

#[path = "../../engine/tests/common/browser.rs"]
mod browser;
#[path = "page/fixture.rs"]
mod fixture;
#[path = "../../engine/tests/common/skip.rs"]
mod skip;

use browser::Browser;

/// The cell texts of the table's rows: what a reader sees, without tags.
fn rows(page: &str, section: &str) -> Vec<String> {
    let section = page.split(&format!("<section id=\"{section}\"")).nth(1).expect("the section");
    let section = section.split("</section>").next().expect("its end");
    let rows = section.split("<tr").skip(1);
    let text = |row: &str| {
        let mut text = String::new();
        for part in format!("<{row}").split('<').skip(1) {
            text.push_str(part.split_once('>').map_or("", |(_, text)| text));
            text.push(' ');
        }
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    rows.map(text).collect()
}

fn row(rows: &[String], parts: &[&str]) -> String {
    let row = rows.iter().find(|row| parts.iter().all(|part| row.contains(part)));
    row.unwrap_or_else(|| panic!("no row with {parts:?} in {rows:#?}")).clone()
}

#[test]
fn annals_stands_beside_the_best_that_kept_the_same_promise() {
    let rows = rows(&render(&fixture::results()), "summary");
    // okaywal is faster and promises less.
    let solo = row(&rows, &["solo", "128 B"]);
    for part in ["10.4 k/s ±4 %", "5.81 k/s", "fjall + group", "1.8", "91.3 %"] {
        assert!(solo.contains(part), "{part}: {solo}");
    }
    // fjall is far faster and lost what it acknowledged.
    let hot = row(&rows, &["hot", "16 threads"]);
    assert!(hot.contains("88 k/s") && hot.contains("redb") && hot.contains("21.5"), "{hot}");
    assert!(hot.contains("±31 %, noisy"), "{hot}");
    // At a fixed rate the shorter time is the better one.
    let latency = row(&rows, &["latency", "50 % of capacity", "p99"]);
    assert!(latency.contains("348 µs") && latency.contains("624 µs"), "{latency}");
    assert!(latency.contains("1.8"), "{latency}");
}

#[test]
fn every_measurement_contender_device_and_remark_is_there() {
    let page = render(&fixture::results());
    let workloads = rows(&page, "workloads");
    let annals = row(&workloads, &["annals", "88 k/s", "1.25"]);
    assert!(annals.contains("84.5 k/s – 91.5 k/s"), "{annals}");
    row(&workloads, &["own ratio 0.83", "memory per aggregate 96 B"]);
    row(&workloads, &["fjall", "not verified", "7 M/s"]);
    row(&workloads, &["submit", "µs"]);
    let contenders = rows(&page, "contenders");
    row(&contenders, &["okaywal", "0.3.1", "upper bound", "it knows no conditions"]);
    row(&contenders, &["umadb", "did not finish: no `umadb` in PATH"]);
    let device = rows(&page, "device");
    row(&device, &["blocking write, RWF_DSYNC 4 KiB 16 66.7 k/s 273 MB/s"]);
    row(&device, &["io_uring write, RWF_DSYNC 4 KiB 1 11.4 k/s 46.5 MB/s 80.3 µs 175 µs"]);
    for text in ["fio is not installed", "1 of 67 measurements", "2 logical processors", "8 GiB"] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn no_text_of_the_results_becomes_a_tag_and_nothing_is_fetched() {
    let page = render(&fixture::results());
    assert!(!page.contains("<img") && !page.contains("<b>at all") && !page.contains("<fast>"));
    assert!(page.contains("&#60;img src=x"), "the name is there, escaped");
    let data = page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next());
    let data: Value = serde_json::from_str(data.expect("the data")).expect("whole JSON");
    assert!(data["styles"][fixture::HOSTILE]["colour"].is_string());
    for fetching in [" src=\"", "@import", "url(", "href=\"http", "fetch("] {
        assert!(!page.contains(fetching), "{fetching}");
    }
}

#[test]
fn a_product_has_one_colour_and_its_variants_share_it() {
    let page = render(&fixture::results());
    let data = page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next());
    let data: Value = serde_json::from_str(data.expect("the data")).expect("whole JSON");
    let of =
        |name: &str| (data["styles"][name]["colour"].clone(), data["styles"][name]["dash"].clone());
    assert_eq!(of("fjall").0, of("fjall + group").0);
    assert_ne!(of("fjall").1, of("fjall + group").1);
    assert_eq!(of("annals").0, of("annals (blocking)").0);
    let mut colours: Vec<String> =
        ["annals", "fjall", "redb", "okaywal", "umadb"].map(|name| of(name).0.to_string()).into();
    colours.sort();
    colours.dedup();
    assert_eq!(colours.len(), 5, "{colours:?}");
}

#[test]
fn a_plot_without_data_is_left_out() {
    let ids = |page: &str| -> Vec<String> {
        let figures = page.split("<figure class=\"plot\" id=\"").skip(1);
        figures.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
    };
    let mut results = fixture::results();
    assert_eq!(ids(&render(&results)), ["percentiles", "clients", "offered", "size"]);
    // One number of clients is a point and no line.
    results.runs.retain(|run| run.workload == "hot" || run.case == "64 threads");
    assert_eq!(ids(&render(&results)), ["percentiles"]);
    for run in &mut results.runs {
        run.latency = None;
    }
    let page = render(&results);
    assert!(ids(&page).is_empty() && !page.contains("id=\"plots\""));
    results.runs.clear();
    results.device.clear();
    results.remarks.clear();
    assert!(render(&results).contains("The machine and the run"));
}

/// One browser at a time: each takes two hundred megabytes.
static ONE: Mutex<()> = Mutex::new(());

struct Shown {
    browser: Browser,
    _folder: TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// The page in a browser; none where there is no browser.
fn shown(width: u32, scheme: &str, scripts: bool) -> Option<Shown> {
    let chromium = browser::chromium_for("the benchmark's page in a browser")?;
    let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("page.html");
    std::fs::write(&page, render(&fixture::results())).expect("the page is written");
    let mut browser = Browser::start(&chromium);
    browser.show(width, scheme);
    if !scripts {
        browser.call("Emulation.setScriptExecutionDisabled", serde_json::json!({ "value": true }));
    }
    browser.open(&format!("file://{}", page.display()));
    if scripts {
        browser.settle();
    }
    Some(Shown { browser, _folder: folder, _turn: turn })
}

/// How many pixels of each plot have the colour of Annals' line, as the style now says it.
const PAINTED: &str = r#"(() => {
  const hex = getComputedStyle(document.documentElement).getPropertyValue("--annals").trim();
  const [r, g, b] = [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));
  return [...document.querySelectorAll("figure canvas")].map(canvas => {
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    let count = 0;
    for (let i = 0; i < pixels.length; i += 4)
      if (pixels[i] === r && pixels[i + 1] === g && pixels[i + 2] === b && pixels[i + 3] === 255) count++;
    return count;
  });
})()"#;

/// All plots, each with a line of Annals in it. A line across a plot of 300 pixels has that many.
fn assert_painted(browser: &mut Browser, at_least: u64) {
    let painted = browser.evaluate(PAINTED);
    let counts: Vec<u64> =
        painted.as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
    assert_eq!(counts.len(), 4, "{painted}");
    assert!(counts.iter().all(|count| *count >= at_least), "{painted}");
}

#[test]
fn in_a_browser_every_plot_is_drawn_without_complaint() {
    let Some(Shown { mut browser, .. }) = shown(1280, "light", true) else { return };
    assert_painted(&mut browser, 200);
    // Each view of each plot is another picture.
    let views = browser.evaluate(
        "(async () => {
            const views = [];
            for (const select of document.querySelectorAll('select')) {
                const pictures = new Set();
                for (const option of select.options) {
                    select.value = option.value;
                    select.dispatchEvent(new Event('change'));
                    await new Promise(done => setTimeout(done));
                    pictures.add(select.closest('figure').querySelector('canvas').toDataURL());
                }
                views.push([select.options.length, pictures.size]);
            }
            return views;
        })()",
    );
    let views = views.as_array().expect("a list");
    assert_eq!(views.len(), 3, "{views:?}");
    assert!(views.iter().all(|view| view[0] == view[1]), "{views:?}");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn in_a_browser_the_tables_say_what_was_measured() {
    let Some(Shown { mut browser, .. }) = shown(1280, "light", true) else { return };
    let solo = browser.evaluate("document.querySelector('.summary tbody tr').innerText");
    let solo = solo.as_str().expect("a text");
    for part in ["solo", "128 B", "10.4 k/s", "5.81 k/s", "fjall + group", "91.3 %"] {
        assert!(solo.contains(part), "{part}: {solo}");
    }
    let names = browser.evaluate(
        "[...document.querySelectorAll('#contenders tbody th')].map(th => th.textContent)",
    );
    assert!(
        names.as_array().is_some_and(|names| names.iter().any(|name| name == fixture::HOSTILE)),
        "{names}"
    );
    assert_eq!(browser.evaluate("document.images.length"), 0);
}

#[test]
fn in_a_browser_the_pointer_finds_the_figures() {
    let Some(Shown { mut browser, .. }) = shown(1280, "light", true) else { return };
    let middle = browser.evaluate(
        "(() => {
            const over = document.querySelector('#clients .u-over');
            over.scrollIntoView({ block: 'center' });
            const place = over.getBoundingClientRect();
            return [place.left + place.width / 2, place.top + place.height / 2];
        })()",
    );
    let moved = serde_json::json!({ "type": "mouseMoved", "x": middle[0], "y": middle[1] });
    browser.call("Input.dispatchMouseEvent", moved);
    browser.settle();
    let tip = browser.evaluate("document.querySelector('#clients .tip').innerText");
    let tip = tip.as_str().expect("a text");
    assert!(tip.contains("16 waiting threads") || tip.contains("64 waiting threads"), "{tip}");
    assert!(tip.contains("annals") && tip.contains(fixture::HOSTILE), "{tip}");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn in_a_browser_dark_has_colours_of_its_own() {
    let Some(Shown { mut browser, .. }) = shown(1280, "light", true) else { return };
    let colours = "(() => {
        const style = getComputedStyle(document.body);
        return [style.backgroundColor, style.color];
    })()";
    let light = browser.evaluate(colours);
    browser.show(1280, "dark");
    browser.settle();
    let dark = browser.evaluate(colours);
    assert!(light[0] != dark[0] && light[1] != dark[1], "{light} {dark}");
    // Redrawn: the lines have the dark scheme's colour now, which the light one's lines did not.
    assert_painted(&mut browser, 200);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn in_a_browser_a_phone_never_scrolls_sideways() {
    let Some(Shown { mut browser, .. }) = shown(1280, "dark", true) else { return };
    browser.show(360, "dark");
    browser.evaluate(
        "document.querySelectorAll('details').forEach(details => { details.open = true; })",
    );
    browser.settle();
    let wide = browser.evaluate(
        "[...document.querySelectorAll('body *')]
            .filter(one => !one.closest('.scroll') && one.getBoundingClientRect().right > innerWidth + 0.5)
            .map(one => one.outerHTML.slice(0, 80))",
    );
    assert_eq!(wide, serde_json::json!([]));
    assert_eq!(browser.evaluate("document.documentElement.scrollWidth"), 360);
    let inside = "[...document.querySelectorAll('.case')].every(table => table.offsetWidth > table.parentElement.clientWidth)";
    assert_eq!(browser.evaluate(inside), true, "the tables scroll in containers of their own");
    assert_painted(&mut browser, 100);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn in_a_browser_without_scripts_the_tables_remain() {
    let Some(Shown { mut browser, .. }) = shown(1280, "light", false) else { return };
    let heights = browser.evaluate(
        "['#plots', '.summary', '#contenders table', 'noscript p'].map(one => document.querySelector(one)?.offsetHeight)",
    );
    let heights: Vec<u64> =
        heights.as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
    assert_eq!(heights.len(), 4, "{heights:?}");
    assert!(heights[0] == 0 && heights[1..].iter().all(|height| *height > 10), "{heights:?}");
}
