//! What a run leaves behind: the table for the terminal, the results for programs, the page to look at and to share.

pub mod beside;
pub mod hgrm;
pub mod json;
pub mod page;
pub mod table;
pub mod units;

use std::{fs, path::Path};

use crate::{campaign::Finished, results::Results, store::Result};

/// Writes everything into a folder, which is made if it is not there. `finished` are the runs of the results, in the same order; the names of their
/// `.hgrm` files are noted in the results.
pub fn write(out: &Path, results: &mut Results, finished: &[Finished]) -> Result<()> {
    fs::create_dir_all(out).map_err(|error| format!("making {} failed: {error}", out.display()))?;
    for (run, finished) in results.runs.iter_mut().zip(finished) {
        hgrm::write(out, run, &finished.histograms)?;
    }
    json::write(&out.join("results.json"), results)?;
    let page = out.join("page.html");
    fs::write(&page, page::render(results))
        .map_err(|error| format!("writing {} failed: {error}", page.display()))?;
    Ok(())
}
