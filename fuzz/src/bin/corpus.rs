//! Writes the inputs that the fuzzer starts from into `corpus/<target>` of the directory it is called in.

use std::fs;
use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    let directory = Path::new("corpus/segment");
    fs::create_dir_all(directory)?;
    for (name, input) in annals_fuzz::segment_corpus() {
        fs::write(directory.join(name), input)?;
    }
    Ok(())
}
