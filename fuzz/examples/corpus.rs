//! Writes the inputs that the fuzzer starts from into `corpus/<target>` of the directory it is called in: what the encoder
//! makes, and the kept crashes.

use std::fs;
use std::io;
use std::path::Path;

use annals_fuzz::targets::ALL;

fn main() -> io::Result<()> {
    for target in ALL {
        let directory = Path::new("corpus").join(target.name);
        fs::create_dir_all(&directory)?;
        for (name, input) in (target.corpus)() {
            fs::write(directory.join(name), input)?;
        }
    }
    Ok(())
}
