//! The page in a browser. Where there is no Chromium the tests say so and check nothing.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use crate::browser::{self, Browser};
use crate::common::directory;
use crate::process::Service;

/// One browser at a time: each takes two hundred megabytes.
static ONE: Mutex<()> = Mutex::new(());

/// Runs a test in a browser that shows the page, if there is a browser.
fn in_browser(width: u32, scheme: &str, run: impl FnOnce(&mut Browser, Service, &Path)) {
    let what = "the page of the example service in a browser: live, its form, narrow, dark, after a restart";
    let Some(chromium) = browser::chromium_for(what) else { return };
    let _turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = directory();
    let service = Service::start(folder.path());
    let mut browser = Browser::start(&chromium);
    browser.show(width, scheme);
    browser.open(&format!("{}/", service.url));
    run(&mut browser, service, folder.path());
}

/// Waits until an expression is true in the page.
fn until(browser: &mut Browser, expression: &str) {
    let waiting = format!(
        "new Promise(done => {{
            const end = Date.now() + 30000;
            const look = () => ({expression}) ? done(true) : Date.now() > end ? done(document.body.innerText) : setTimeout(look, 10);
            look();
        }})"
    );
    assert_eq!(browser.evaluate(&waiting), json!(true), "{expression}");
}

#[test]
fn in_a_browser_an_order_of_somebody_else_appears_by_itself() {
    in_browser(1280, "light", |browser, service, _| {
        until(browser, "document.querySelector('#link').innerText === 'Live'");
        until(browser, "document.querySelector('#empty').offsetHeight > 0");
        browser.evaluate("window.same = true");
        let hostile = r#"{"item":"<img src=x onerror=alert(1)> & tea","quantity":2}"#;
        assert_eq!(service.post("/orders/from-elsewhere", "", hostile).status, 201);
        until(browser, "document.querySelectorAll('#rows tr').length === 1");
        let row = browser.evaluate("document.querySelector('#rows tr').innerText");
        let row = row.as_str().unwrap();
        for part in [
            "from-elsewhere",
            "<img src=x onerror=alert(1)> & tea",
            "2 pieces",
            "placed",
            "version 1",
            "Ship",
        ] {
            assert!(row.contains(part), "{part}: {row}");
        }
        assert_eq!(service.ship("from-elsewhere", "").status, 200);
        until(browser, "document.querySelector('#rows .badge').innerText === 'shipped'");
        let figures =
            "['placed', 'shipped', 'waiting'].map(id => document.getElementById(id).innerText)";
        assert_eq!(browser.evaluate(figures), json!(["1", "1", "0"]));
        assert_eq!(browser.evaluate("document.querySelectorAll('#rows button').length"), 0);
        assert_eq!(browser.evaluate("document.querySelector('#empty').offsetHeight"), 0);
        assert_eq!(browser.evaluate("window.same"), true, "without a reload");
        assert_eq!(browser.complaints(), [""; 0]);
    });
}

#[test]
fn in_a_browser_the_page_places_and_ships() {
    in_browser(1280, "light", |browser, service, _| {
        until(browser, "document.querySelector('#link').innerText === 'Live'");
        // Twice in a row: the second finds the form at work.
        browser.evaluate(
            "const form = document.querySelector('#place');
            form.querySelector('[name=item]').value = 'Oolong';
            form.querySelector('[name=quantity]').value = '3';
            form.requestSubmit();
            form.requestSubmit();",
        );
        until(browser, "document.querySelector('#said').innerText.endsWith('is placed.')");
        until(browser, "document.querySelectorAll('#rows tr').length === 1");
        let id = browser.evaluate("document.querySelector('#rows tr').dataset.order");
        let id = id.as_str().unwrap().to_owned();
        let order = service.get(&format!("/orders/{id}")).body;
        assert_eq!(
            (&order["history"][0]["item"], &order["history"][0]["quantity"]),
            (&json!("Oolong"), &json!(3))
        );

        browser.evaluate(
            "const ship = document.querySelector('#rows button'); ship.focus(); ship.click();",
        );
        until(browser, "document.querySelector('#rows .badge').innerText === 'shipped'");
        until(browser, "document.querySelector('#said').innerText.endsWith('is shipped.')");
        assert_eq!(
            browser.evaluate("document.activeElement.tagName"),
            "TH",
            "the focus stays in the row"
        );
        assert_eq!(service.version(&id), json!(2));
        until(browser, "document.querySelector('#placed').innerText === '1'");
        assert_eq!(browser.complaints(), [""; 0]);

        // A refusal is told.
        browser.evaluate("document.querySelector('[name=item]').value = '\\u0007'; document.querySelector('#place').requestSubmit()");
        until(
            browser,
            "document.querySelector('#said').innerText === 'Refused: an item has no control characters.'",
        );
    });
}

#[test]
fn in_a_browser_a_lost_answer_is_asked_for_again_with_the_same_key() {
    in_browser(1280, "light", |browser, _service, _| {
        until(browser, "document.querySelector('#link').innerText === 'Live'");
        browser.evaluate(
            "window.keys = [];
            const real = window.fetch;
            window.fetch = async (path, request) => {
                keys.push(request.headers['idempotency-key']);
                const answer = await real(path, request);
                if (keys.length === 1) throw new TypeError('the connection broke');
                return answer;
            };
            document.querySelector('[name=item]').value = 'Assam';
            document.querySelector('#place').requestSubmit();",
        );
        until(browser, "document.querySelector('#said').innerText.endsWith('is placed.')");
        assert_eq!(browser.evaluate("keys.length"), 2);
        assert_eq!(browser.evaluate("keys[0] === keys[1]"), true);
        until(browser, "document.querySelector('#placed').innerText === '1'");
        assert_eq!(browser.complaints(), [""; 0]);
    });
}

#[test]
fn in_a_browser_the_page_comes_back_after_a_restart() {
    in_browser(360, "dark", |browser, service, folder| {
        assert_eq!(service.place("before", "").status, 201);
        until(browser, "document.querySelector('#placed').innerText === '1'");
        browser.evaluate("window.same = true");
        let port = service.port().to_owned();
        service.kill();
        until(browser, "document.querySelector('#link').innerText !== 'Live'");
        // What it asks for meanwhile is done once the service is there.
        browser.evaluate(
            "document.querySelector('[name=item]').value = 'Patience';
            document.querySelector('#place').requestSubmit();",
        );
        let service = Service::start_at(folder, &port);
        assert_eq!(service.place("after", "").status, 201);
        until(browser, "document.querySelector('#placed').innerText === '3'");
        until(browser, "document.querySelector('#link').innerText === 'Live'");
        let rows = browser.evaluate("document.querySelector('#rows').innerText").to_string();
        for part in ["before", "after", "Patience"] {
            assert_eq!(rows.matches(part).count(), 1, "{part}: {rows}");
        }
        assert_eq!(browser.evaluate("window.same"), true, "without a reload");
    });
}

#[test]
fn in_a_browser_a_phone_never_scrolls_sideways_and_dark_is_dark() {
    in_browser(360, "light", |browser, service, _| {
        let long = json!({ "item": "x".repeat(80), "quantity": 1000 }).to_string();
        assert_eq!(service.post(&format!("/orders/{}", "W".repeat(40)), "", &long).status, 201);
        until(browser, "document.querySelectorAll('#rows tr').length === 1");
        browser.settle();
        let wide = "[...document.querySelectorAll('body *')]
            .filter(one => !one.closest('pre') && one.getBoundingClientRect().right > innerWidth + 0.5)
            .map(one => one.outerHTML.slice(0, 80))";
        assert_eq!(browser.evaluate(wide), json!([]));
        assert_eq!(browser.evaluate("document.documentElement.scrollWidth"), 360);
        let unnamed = "[...document.querySelectorAll('input, button')].filter(one => !one.labels?.length && !one.innerText.trim()).length";
        assert_eq!(browser.evaluate(unnamed), 0);
        let colours = "(() => { const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]; })()";
        let light = browser.evaluate(colours);
        browser.show(360, "dark");
        browser.settle();
        let dark = browser.evaluate(colours);
        assert!(light[0] != dark[0] && light[1] != dark[1], "{light} {dark}");
        assert_eq!(browser.complaints(), [""; 0]);
    });
}
