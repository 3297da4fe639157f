//! `results.json`: the results as they are, for programs and for comparing.

use std::{fs, path::Path};

use serde::Deserialize;

use crate::{results::Results, store::Result};

/// Writes the file.
pub fn write(path: &Path, results: &Results) -> Result<()> {
    let mut text = serde_json::to_string_pretty(results)?;
    text.push('\n');
    fs::write(path, text)
        .map_err(|error| format!("writing {} failed: {error}", path.display()).into())
}

/// The one field that every form has.
#[derive(Deserialize)]
struct Form {
    form: u32,
}

/// Reads the file.
pub fn read(path: &Path) -> Result<Results> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| format!("{shown}: {error}: expected a results.json of this benchmark"))?;
    let Form { form } = serde_json::from_str(&text)
        .map_err(|error| format!("{shown}: {error}: expected a results.json of this benchmark"))?;
    if form != Results::FORM {
        return Err(format!(
            "{shown} has form {form}: expected {}, so compare with a build of the same age or run it again",
            Results::FORM
        )
        .into());
    }
    Ok(serde_json::from_str(&text).map_err(|error| format!("{shown} is damaged: {error}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{results::Machine, stores::contract};

    #[test]
    fn what_was_written_is_read() {
        let dir = contract::folder();
        let path = dir.path().join("results.json");
        let results = Results {
            form: Results::FORM,
            began: "2026-01-31T12:00:00Z".into(),
            seconds: 1.5,
            command: "bench".into(),
            machine: Machine::default(),
            device: Vec::new(),
            contenders: Vec::new(),
            runs: Vec::new(),
            remarks: vec!["a remark".into()],
        };
        write(&path, &results).expect("it is written");
        let found = read(&path).expect("it is read");
        assert_eq!((found.seconds, found.remarks), (1.5, results.remarks.clone()));

        write(&path, &Results { form: Results::FORM + 1, ..results }).expect("it is written");
        let refused = read(&path).expect_err("it has another form").to_string();
        assert!(refused.contains("expected 1"), "{refused}");
        fs::write(&path, "no json").expect("it is written");
        read(&path).expect_err("it is something else");
    }
}
