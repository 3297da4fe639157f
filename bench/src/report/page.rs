//! The page: one file of HTML that holds the tables, the plots' data and everything that draws them, so that it opens from
//! disk, from a mail or from any server, with no network.
//!
//! The tables are plain HTML and need no script. [`askama`] escapes every text that comes from the results; the plots' data
//! travels as JSON in which no tag can begin. The plots are drawn by uPlot, whose source and licence are in `page/uplot`.

use std::collections::BTreeMap;

use askama::Template;
use serde::Serialize;

use super::units;
use crate::results::{Contender, DeviceRun, Kind, Results};

mod plots;
mod tables;

use plots::Plot;
use tables::{Row, Workload};

/// How many colours `page.css` has for peers.
const COLOURS: usize = 8;

/// Up to so many cases lie open at first.
const OPEN_CASES: usize = 12;

/// Renders the page.
///
/// # Panics
///
/// Never: what is rendered is text and numbers, written to memory.
pub fn render(results: &Results) -> String {
    let styles = styles(results);
    let plots = plots::all(results);
    let data = serde_json::json!({ "plots": plots, "styles": styles }).to_string();
    let workloads = tables::workloads(results, &styles);
    let cases: usize = workloads.iter().map(|workload| workload.cases.len()).sum();
    let contenders = results.contenders.iter().map(|one| (one, colour(&styles, &one.name)));
    let page = Page {
        results,
        machine: machine(results),
        rows: tables::rows(results, &styles),
        plots,
        open: cases <= OPEN_CASES,
        workloads,
        contenders: contenders.collect(),
        device: results.device.iter().map(device).collect(),
        unverified: results.runs.iter().filter(|run| !run.verified).count(),
        // Whatever a contender is called, no tag can begin in it.
        data: data.replace('<', "\\u003c"),
    };
    page.render().expect("memory takes what is written to it")
}

#[derive(Debug, Template)]
#[template(path = "page.html")]
struct Page<'a> {
    results: &'a Results,
    machine: Vec<(&'static str, String)>,
    rows: Vec<Row>,
    plots: Vec<Plot>,
    open: bool,
    workloads: Vec<Workload<'a>>,
    contenders: Vec<(&'a Contender, String)>,
    device: Vec<[String; 8]>,
    unverified: usize,
    data: String,
}

impl Page<'_> {
    const STYLE: &'static str = include_str!("page/page.css");
    const SCRIPT: &'static str = include_str!("page/page.js");
    const UPLOT: &'static str = include_str!("page/uplot/uPlot.iife.min.js");
    const UPLOT_STYLE: &'static str = include_str!("page/uplot/uPlot.min.css");
    const UPLOT_LICENCE: &'static str = include_str!("page/uplot/LICENSE");

    /// Those that Annals is compared with, by name.
    fn peers(&self) -> String {
        let peers = self.results.contenders.iter();
        let is_peer = |one: &&Contender| !matches!(one.kind, Kind::Annals | Kind::Bound);
        let peers = peers.filter(is_peer).filter(|one| one.failure.is_none());
        peers.map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn date(&self) -> &str {
        self.results.began.split('T').next().unwrap_or_default()
    }

    fn kind(&self, kind: &Kind) -> &'static str {
        match kind {
            Kind::Annals => "Annals",
            Kind::Embedded => "embedded",
            Kind::Grouped => "embedded, group commit",
            Kind::Server => "server",
            Kind::Bound => "upper bound: promises less",
        }
    }
}

/// How a contender is drawn, in every plot and beside its name.
#[derive(Debug, Serialize)]
struct Style {
    /// The variable of `page.css` that holds the colour.
    colour: String,
    /// 0: solid, 1: dashed, 2: dotted.
    dash: u8,
    strong: bool,
}

type Styles = BTreeMap<String, Style>;

/// A colour for each product, the same in every plot. What stands behind a group-commit thread, or differs in an option, shares
/// its product's and is dashed.
fn styles(results: &Results) -> Styles {
    let mut families: Vec<&str> = Vec::new();
    let mut styles = Styles::new();
    for contender in &results.contenders {
        let family = contender.name.split([' ', '+', '(']).next().unwrap_or_default();
        let variant = family.len() != contender.name.len();
        let style = if contender.kind == Kind::Annals {
            Style { colour: "--annals".into(), dash: u8::from(variant), strong: !variant }
        } else {
            let at = families.iter().position(|known| *known == family).unwrap_or_else(|| {
                families.push(family);
                families.len() - 1
            });
            let dash = if variant { 1 } else { 2 * u8::from(at >= COLOURS) };
            Style { colour: format!("--peer-{}", at % COLOURS), dash, strong: false }
        };
        styles.insert(contender.name.clone(), style);
    }
    let bare = Style { colour: "--muted".into(), dash: 2, strong: false };
    styles.insert(plots::DEVICE.into(), bare);
    styles
}

fn colour(styles: &Styles, contender: &str) -> String {
    styles.get(contender).map_or("--muted".into(), |style| style.colour.clone())
}

/// The faster method of the bare device for such requests.
fn best_device<'a>(
    runs: &'a [DeviceRun],
    direction: &str,
    block: u64,
    depth: u32,
) -> Option<&'a DeviceRun> {
    let same = |run: &&DeviceRun| {
        (run.direction.as_str(), run.block_bytes, run.depth) == (direction, block, depth)
    };
    // `fio` checks our own loops; it is not the reference.
    let ours = runs.iter().filter(same).filter(|run| run.method != "fio");
    ours.max_by(|a, b| a.rate.median.total_cmp(&b.rate.median))
}

fn machine(results: &Results) -> Vec<(&'static str, String)> {
    let machine = &results.machine;
    let processors = match machine.processors {
        1 => "1 logical processor".to_owned(),
        many => format!("{many} logical processors"),
    };
    let facts = [
        ("Processor", format!("{}, {processors}", machine.processor)),
        ("Memory", units::binary(machine.memory_bytes as f64)),
        ("File system", machine.file_system.clone()),
        ("Device", machine.block_device.clone()),
        ("Kernel", machine.kernel.clone()),
        ("Compiler", machine.compiler.clone()),
        ("Load", format!("{:.2} before, {:.2} after", machine.load_before, machine.load_after)),
        ("Taken by others", format!("{} of processor time", units::percent(machine.foreign_share))),
        ("Began", results.began.clone()),
        ("Took", units::nanos(results.seconds * 1e9)),
        ("Command", results.command.clone()),
    ];
    facts.into_iter().filter(|(_, fact)| !fact.is_empty()).collect()
}

/// Method, direction, block, depth, rate, bandwidth, p50, p99.
fn device(run: &DeviceRun) -> [String; 8] {
    let bandwidth = run.rate.median * run.block_bytes as f64;
    let direction = match run.durability.as_str() {
        "" => run.direction.clone(),
        durability => format!("{}, {durability}", run.direction),
    };
    [
        run.method.clone(),
        direction,
        units::binary(run.block_bytes as f64),
        run.depth.to_string(),
        units::rate(run.rate.median),
        format!("{}/s", units::bytes(bandwidth)),
        units::nanos(run.latency.p50 as f64),
        units::nanos(run.latency.p99 as f64),
    ]
}
