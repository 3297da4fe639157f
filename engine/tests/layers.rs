//! The layers of the crate are a list, and each uses only those above it.
//!
//! Every source file is read, and every path that begins in `crate` or climbs out of its module by `super` is held
//! against the list. Test code may use what it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// From the top down. A module may use its own layer and those above.
const LAYERS: [&[&str]; 12] = [
    &["limits", "error", "options", "id", "key", "event", "expect"],
    &["sync"],
    &["stats"],
    &["reserve"],
    &["format"],
    &["disk"],
    &["log"],
    &["index"],
    &["writer"],
    &["read"],
    &["recover"],
    &[
        "aggregate",
        "append",
        "execute",
        "follow",
        "identity_file",
        "salvage",
        "shard",
        "store",
        "ticket",
        "verify",
        "winner",
    ],
];

/// What the list alone would allow: a module, and one above it that it does without all the same.
const NEVER: [(&str, &str, &str); 12] = [
    ("format", "sync", "format is bytes: pure"),
    ("format", "reserve", "format is bytes: pure"),
    ("disk", "format", "disk knows no records"),
    ("disk", "reserve", "disk knows no records"),
    ("read", "writer", "readers and the log writer meet in what lies above them"),
    ("verify", "format", VERIFY),
    ("verify", "identity_file", VERIFY),
    ("verify", "index", VERIFY),
    ("verify", "log", VERIFY),
    ("verify", "read", VERIFY),
    ("verify", "recover", VERIFY),
    ("verify", "store", VERIFY),
];

const VERIFY: &str = "the verifier is a reader of the format of its own";

/// What only `sync` may name.
const SYNC_ONLY: [&str; 5] =
    ["std::sync::atomic", "core::sync::atomic", "std::thread", "loom::", "shuttle::"];

/// How often the word `unsafe` stands in each module that has it: blocks, functions and implementations, tests aside.
const UNSAFE: [(&str, usize); 8] = [
    ("append", 1),
    ("disk", 55),
    ("index", 33),
    ("log", 6),
    ("read", 1),
    ("reserve", 41),
    ("sync", 18),
    ("writer", 14),
];

/// Not in the list: they name modules, they use none.
const ROOTS: [&str; 2] = ["lib", "internals"];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The source without comments and the contents of strings and characters, so that what is left can be matched.
fn bare(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut bare = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let rest_starts = |at: usize, with: &str| bytes[at..].starts_with(with.as_bytes());
    while at < bytes.len() {
        if rest_starts(at, "//") {
            at += bytes[at..].iter().take_while(|b| **b != b'\n').count();
        } else if rest_starts(at, "/*") {
            at += source[at..].find("*/").map_or(bytes.len() - at, |end| end + 2);
        } else if let Some(skip) = raw_string(&source[at..]).filter(|_| starts_word(bytes, at)) {
            at += skip;
        } else if bytes[at] == b'"' {
            at += 1;
            while at < bytes.len() && bytes[at] != b'"' {
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
            at += 1;
        } else if bytes[at] == b'\'' {
            at += character(&source[at..]);
        } else {
            bare.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&bare).into_owned()
}

fn starts_word(bytes: &[u8], at: usize) -> bool {
    at == 0 || !(bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

/// The length of a raw string that begins here.
fn raw_string(rest: &str) -> Option<usize> {
    let start = if rest.starts_with("br") { 2 } else { 1 };
    if !rest.starts_with('r') && start == 1 {
        return None;
    }
    let hashes = rest[start..].bytes().take_while(|b| *b == b'#').count();
    let body = start + hashes + 1;
    if rest.as_bytes().get(body - 1) != Some(&b'"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    rest[body..].find(&end).map(|at| body + at + end.len())
}

/// The length of a character that begins here, or 1: the mark of a lifetime.
fn character(rest: &str) -> usize {
    if rest[1..].starts_with('\\') {
        return rest[3..].find('\'').map_or(1, |end| end + 4);
    }
    let inside = rest[1..].chars().next().map_or(0, char::len_utf8);
    if rest[1 + inside..].starts_with('\'') { inside + 2 } else { 1 }
}

/// Takes out every item under `#[cfg(test)]` or `#[cfg(all(test, …))]`; names the modules among them that are files.
fn without_tests(bare: &str) -> (String, BTreeSet<String>) {
    let mut kept = String::new();
    let mut files = BTreeSet::new();
    let mut rest = bare;
    let mark = ["#[cfg(test", "#[cfg(all(test"];
    while let Some(at) = mark.iter().filter_map(|mark| rest.find(mark)).min() {
        kept.push_str(&rest[..at]);
        let end = rest[at..].find(['{', ';']).map_or(rest.len(), |end| at + end);
        if rest[end..].starts_with(';') {
            let item = &rest[at..end];
            if let Some((_, name)) = item.rsplit_once("mod ") {
                files.insert(name.trim().to_owned());
            }
            rest = &rest[end + 1..];
        } else {
            rest = &rest[end + balanced(&rest[end..])..];
        }
    }
    kept.push_str(rest);
    (kept, files)
}

/// The length of what stands between a brace and the one that closes it, both included.
fn balanced(rest: &str) -> usize {
    let mut depth = 0_usize;
    for (at, each) in rest.bytes().enumerate() {
        match each {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    rest.len()
}

/// The first names after the root of the crate, in every path that leads there from a module at this depth.
fn uses(bare: &str, depth: usize) -> Vec<String> {
    let root = format!("{}::", vec!["super"; depth].join("::"));
    let mut found = Vec::new();
    for start in ["crate::", root.as_str()] {
        for (at, _) in bare.match_indices(start) {
            let before = &bare[..at];
            let in_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
            if in_word || (before.ends_with("::") && !before.ends_with("=::")) {
                continue;
            }
            found.extend(first_names(&bare[at + start.len()..]));
        }
    }
    found
}

fn first_names(rest: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let Some(inside) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let mut names = Vec::new();
    let mut depth = 0_usize;
    let mut start = 0;
    for (at, each) in inside.bytes().enumerate() {
        match (each, depth) {
            (b',' | b'}', 0) => {
                names.push(word(inside[start..at].trim_start()));
                start = at + 1;
                if each == b'}' {
                    break;
                }
            }
            (b'{', _) => depth += 1,
            (b'}', _) => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name: &String| !name.is_empty() && name != "self");
    names
}

/// What is wrong with one file of a module. `depth` counts the steps up to the root of the crate.
fn wrong(module: &str, depth: usize, bare: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    // A macro that is nothing outside of models and mutants.
    let bare = &bare.replace("use crate::sync::broken;", "");
    let Some(own) = layer(module) else {
        return vec![format!("`{module}` stands in no layer: put it into the list")];
    };
    for used in uses(bare, depth) {
        let never = NEVER.iter().find(|(from, to, _)| (*from, *to) == (module, used.as_str()));
        match (layer(&used), never) {
            (_, Some((_, _, why))) => wrong.push(format!("`{module}` uses `{used}`: {why}")),
            (Some(theirs), _) if theirs > own => {
                wrong.push(format!("`{module}` uses `{used}`, which lies below it"));
            }
            (Some(_), _) => {}
            (None, _) if own == LAYERS.len() - 1 => {}
            (None, _) => wrong.push(format!("`{module}` uses `{used}`: name the module it is in")),
        }
    }
    if module != "sync" {
        let named = SYNC_ONLY.iter().filter(|name| bare.contains(**name));
        wrong.extend(named.map(|name| format!("`{module}` names `{name}`: only `sync` does")));
    }
    wrong
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the sources are there") {
        let path = entry.expect("and can be listed").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every file of the crate that is not for tests alone: its module with the names below it, and its bare source without tests.
fn without_test_files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 30, "only {} files: the walk is broken", files.len());

    let read: Vec<(PathBuf, String)> = files
        .into_iter()
        .map(|path| {
            let source = fs::read_to_string(&path).expect("a source is text");
            (path, bare(&source))
        })
        .collect();
    // Modules that are compiled for tests alone, as the files that declare them say.
    let mut tests = BTreeSet::new();
    for (path, source) in &read {
        let name = path.file_stem().unwrap_or_default();
        let inside = if name == "mod" || name == "lib" {
            path.parent().unwrap_or(&root).to_owned()
        } else {
            path.with_extension("")
        };
        tests.extend(without_tests(source).1.into_iter().map(|test| inside.join(test)));
    }
    let test_only =
        |path: &Path| tests.iter().any(|test| path.with_extension("").starts_with(test));
    read.into_iter()
        .filter(|(path, _)| !test_only(path))
        .map(|(path, source)| {
            let within = path.strip_prefix(&root).expect("it was found there").with_extension("");
            let mut names: Vec<_> = within.iter().collect();
            names.truncate(
                names.len() - usize::from(names.last().is_some_and(|last| *last == "mod")),
            );
            (names.iter().collect(), without_tests(&source).0)
        })
        .collect()
}

#[test]
fn each_layer_uses_only_those_above_it() {
    let mut all = Vec::new();
    for (within, source) in without_test_files() {
        let names: Vec<&str> = within.iter().filter_map(|name| name.to_str()).collect();
        if ROOTS.contains(&names[0]) {
            continue;
        }
        let found = wrong(names[0], names.len(), &source);
        all.extend(found.into_iter().map(|what| format!("{}: {what}", within.display())));
    }
    assert!(all.is_empty(), "\n{}", all.join("\n"));
}

/// How often a word stands in a bare source.
fn count(source: &str, word: &str) -> usize {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    source.split(|c| !part_of_word(c)).filter(|found| *found == word).count()
}

#[test]
fn unsafe_code_stays_where_it_is_and_grows_nowhere() {
    let mut found = BTreeMap::new();
    for (within, source) in without_test_files() {
        // The attribute that forbids it is another word.
        let number = count(&source, "unsafe");
        if number > 0 {
            let module = within.iter().next().expect("a file has a name");
            *found.entry(module.to_string_lossy().into_owned()).or_insert(0) += number;
        }
    }
    let allowed: BTreeMap<String, usize> =
        UNSAFE.iter().map(|(module, number)| ((*module).to_owned(), *number)).collect();
    assert_eq!(
        found, allowed,
        "how often the word stands in each module: what is gone is to be taken out of the list, and what is new to be thought over"
    );
}

#[test]
fn unsafe_code_is_counted() {
    let source = bare(
        "// unsafe\nfn f() { unsafe { g() } }\nunsafe impl Send for X {}\nconst A: &str = \"unsafe\"; #![forbid(unsafe_code)]",
    );
    assert_eq!(count(&source, "unsafe"), 2);
}

#[test]
fn what_breaks_a_layer_is_found() {
    for (module, depth, source) in [
        ("format", 2, "use crate::disk::File;"),
        ("format", 2, "use crate::sync::Arc;"),
        ("reserve", 2, "fn f() { crate::index::lookup() }"),
        ("reserve", 2, "use super::super::index::Index;"),
        ("reserve", 1, "use super::index::Index;"),
        ("log", 2, "use crate::{error::Error, writer::{place, publish}};"),
        ("log", 2, "use crate::{error::{A, B}, Store};"),
        ("writer", 2, "use crate::read::Read;"),
        ("read", 2, "use crate::writer::Writer;"),
        ("log", 2, "use std::sync::atomic::AtomicU64;"),
        ("index", 2, "std::thread::yield_now();"),
        ("verify", 2, "use crate::format::RecordView;"),
        ("elsewhere", 1, ""),
    ] {
        assert_eq!(wrong(module, depth, &bare(source)).len(), 1, "{module}: {source}");
    }
}

#[test]
fn what_keeps_to_the_layers_is_left_alone() {
    for (module, depth, source) in [
        ("writer", 2, "use crate::{error::Error, log::tail::{Tail, Image}};"),
        ("writer", 2, "use super::place::Placer; use super::super::log::Tail;"),
        ("format", 2, "// use crate::disk::File;\nconst NOTE: &str = \"crate::disk::File\";"),
        ("format", 2, "const A: char = '\\''; const B: &str = r#\"crate::disk \"quoted\"\"#;"),
        ("format", 2, "fn f<'a>(a: &'a str) {}"),
        ("sync", 2, "pub(crate) use std::sync::atomic;"),
        ("store", 1, "use crate::Error; use crate::writer::Writer;"),
    ] {
        assert_eq!(wrong(module, depth, &bare(source)), Vec::<String>::new(), "{source}");
    }
}

#[test]
fn test_code_is_left_out_and_nothing_else() {
    let source = bare(
        "use a;\n#[cfg(test)]\nmod contract;\n#[cfg(all(test, unix))]\nmod tests { fn f() { g!{} } }\nuse b;
         #[cfg(any(test, feature = \"internals\"))]\npub mod sim;",
    );
    let (kept, files) = without_tests(&source);
    assert!(
        kept.contains("use a;") && kept.contains("use b;") && kept.contains("mod sim;"),
        "{kept}"
    );
    assert!(!kept.contains("contract") && !kept.contains("g!"), "{kept}");
    assert_eq!(files.into_iter().collect::<Vec<_>>(), ["contract"]);
}
