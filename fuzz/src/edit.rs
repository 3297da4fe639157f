//! What can be done to a store directory: bytes changed, files cut, swapped, copied, strangers put beside them.
//!
//! An input of the targets `directory`, `verify` and `salvage` is read as one [`Tampered`]. Places are numbers that are
//! taken modulo what there is, so every input means something; they count blocks and bytes in a block, so that one small
//! change of the input goes to another field or to another flush.

use arbitrary::{Arbitrary, Unstructured};

use annals::internals::format::IDENTITY_OFFSETS;

use crate::image::{self, BLOCK, Image};
use crate::repair;

/// The most edits of one input: more only make it slow.
const EDITS_MAX: usize = 12;

/// A store directory that somebody has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tampered {
    /// Which of the images.
    image: u8,
    /// What is made right again after the edits: bit 0 the checksums, bit 1 what flushes and headers say of the flush
    /// before, bit 2 the copies of the identity.
    repair: u8,
    edits: Vec<Edit>,
}

/// A byte of a file.
#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    file: u8,
    block: u8,
    offset: u16,
}

#[derive(Arbitrary, Clone, PartialEq, Eq, Debug)]
enum Edit {
    /// One byte changed.
    Flip {
        at: Place,
        by: u8,
    },
    /// A number set, of one, two, four or eight bytes.
    Number {
        at: Place,
        bytes: u8,
        value: u64,
    },
    /// A number made a little larger or smaller.
    Shift {
        at: Place,
        by: i8,
    },
    /// Some bytes written.
    Write {
        at: Place,
        bytes: [u8; 16],
    },
    /// Blocks made zero.
    Zero {
        at: Place,
        blocks: u8,
    },
    /// Blocks written elsewhere: misdirected, or left from an earlier use.
    Copy {
        from: Place,
        to: Place,
        blocks: u8,
    },
    /// A file cut, perhaps in the middle of a block.
    Cut {
        at: Place,
    },
    /// A file made longer.
    Grow {
        file: u8,
        bytes: u16,
    },
    Remove {
        file: u8,
    },
    /// A file put over another one, or under another name.
    Duplicate {
        from: u8,
        to: u8,
    },
    Rename {
        file: u8,
        name: Name,
    },
    Swap {
        one: u8,
        other: u8,
    },
    /// A file of another store, in the place where it would stand.
    Foreign {
        image: u8,
        file: u8,
    },
    /// Something that is not the store's.
    Stray {
        name: Name,
        bytes: [u8; 8],
    },
    /// A directory where a file or nothing is expected.
    Directory {
        name: Name,
    },
}

/// A name in the store directory or in one of its shards.
#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    Segment { shard: u8, id: u8 },
    LargeSegment { shard: u8, id: u32 },
    Spare { shard: u8, id: u8 },
    Almost { shard: u8, id: u8 },
    Stray { shard: u8 },
    Identity,
    IdentityNew,
    Shard { shard: u8 },
}

impl Name {
    fn path(self) -> String {
        let dir = |shard: u8| format!("shard-{:04}", shard % 3);
        match self {
            Name::Segment { shard, id } => format!("{}/{:016x}.seg", dir(shard), id % 8),
            Name::LargeSegment { shard, id } => {
                format!("{}/{:016x}.seg", dir(shard), u64::from(u32::MAX - id % 4))
            }
            Name::Spare { shard, id } => format!("{}/{:016x}.spare", dir(shard), id % 8),
            Name::Almost { shard, id } => format!("{}/{:016X}.seg~", dir(shard), id),
            Name::Stray { shard } => format!("{}/.DS_Store", dir(shard)),
            Name::Identity => "identity".to_owned(),
            Name::IdentityNew => "identity.new".to_owned(),
            Name::Shard { shard } => dir(shard),
        }
    }
}

impl Tampered {
    /// What an input means.
    pub fn read(input: &[u8]) -> Option<Tampered> {
        let mut input = Unstructured::new(input);
        let (image, repair) = (input.arbitrary().ok()?, input.arbitrary().ok()?);
        let mut edits = Vec::new();
        while !input.is_empty() && edits.len() < EDITS_MAX {
            edits.push(input.arbitrary().ok()?);
        }
        Some(Tampered { image, repair, edits })
    }

    /// The images that all records come from, by number, if none can have been made by the edits: without repairs no
    /// checksum stands for what was changed.
    pub fn untouched(&self) -> Option<Vec<usize>> {
        let all = image::all().len();
        let foreign = self.edits.iter().any(|edit| matches!(edit, Edit::Foreign { .. }));
        let own = vec![usize::from(self.image) % all];
        (self.repair & 7 == 0).then(|| if foreign { (0..all).collect() } else { own })
    }

    /// The directory.
    pub fn image(&self) -> Image {
        let images = image::all();
        let mut image = images[usize::from(self.image) % images.len()].clone();
        for edit in &self.edits {
            edit.apply(&mut image);
        }
        if self.repair & 4 != 0 {
            repair_identity(&mut image);
        }
        if self.repair & 1 != 0 {
            repair_segments(&mut image, self.repair & 2 != 0);
        }
        image
    }
}

fn named(image: &Image, file: u8) -> Option<String> {
    let files = image.files();
    files.get(usize::from(file) % files.len().max(1)).cloned()
}

fn bytes<'a>(image: &'a mut Image, path: &str) -> Option<&'a mut Vec<u8>> {
    image.nodes.get_mut(path)?.as_mut()
}

fn put(image: &mut Image, path: String, content: Option<Vec<u8>>) {
    if let Some((dir, _)) = path.rsplit_once('/') {
        image.nodes.insert(dir.to_owned(), None);
    }
    // What lay in a directory goes with it.
    image.nodes.retain(|other, _| content.is_none() || !other.starts_with(&format!("{path}/")));
    image.nodes.insert(path, content);
}

impl Place {
    /// The file and the bytes from there to its end.
    fn find<'a>(&self, image: &'a mut Image) -> Option<&'a mut [u8]> {
        let path = named(image, self.file)?;
        let bytes = bytes(image, &path)?;
        let block = BLOCK as usize;
        let at = usize::from(self.block) % bytes.len().div_ceil(block).max(1) * block
            + usize::from(self.offset) % block;
        bytes.get_mut(at..)
    }
}

impl Edit {
    fn apply(&self, image: &mut Image) -> Option<()> {
        let block = BLOCK as usize;
        match *self {
            Edit::Flip { at, by } => *at.find(image)?.first_mut()? ^= by,
            Edit::Number { at, bytes, value } => {
                let bytes = 1 << (bytes % 4);
                let place = at.find(image)?.get_mut(..bytes)?;
                place.copy_from_slice(&value.to_le_bytes()[..bytes]);
            }
            Edit::Shift { at, by } => {
                let place = at.find(image)?.get_mut(..4)?;
                let number = u32::from_le_bytes(place.try_into().ok()?);
                place.copy_from_slice(&number.wrapping_add_signed(by.into()).to_le_bytes());
            }
            Edit::Write { at, bytes } => at.find(image)?.get_mut(..16)?.copy_from_slice(&bytes),
            Edit::Zero { at, blocks } => {
                at.find(image)?
                    .iter_mut()
                    .take(block * (usize::from(blocks % 8) + 1))
                    .for_each(|byte| *byte = 0);
            }
            Edit::Copy { from, to, blocks } => {
                let taken = from.find(image)?;
                let length = taken.len().min(block * (usize::from(blocks % 8) + 1));
                let taken = taken[..length].to_vec();
                let place = to.find(image)?;
                let length = length.min(place.len());
                place[..length].copy_from_slice(&taken[..length]);
            }
            Edit::Cut { at } => {
                let rest = at.find(image)?.len();
                let path = named(image, at.file)?;
                let bytes = bytes(image, &path)?;
                bytes.truncate(bytes.len() - rest);
            }
            Edit::Grow { file, bytes: more } => {
                let path = named(image, file)?;
                let bytes = bytes(image, &path)?;
                bytes.resize(bytes.len() + usize::from(more), 0);
            }
            Edit::Remove { file } => {
                let path = named(image, file)?;
                image.nodes.remove(&path);
            }
            Edit::Duplicate { from, to } => {
                let (from, to) = (named(image, from)?, named(image, to)?);
                let content = bytes(image, &from)?.clone();
                put(image, to, Some(content));
            }
            Edit::Rename { file, name } => {
                let path = named(image, file)?;
                let content = image.nodes.remove(&path)?;
                put(image, name.path(), content);
            }
            Edit::Swap { one, other } => {
                let (one, other) = (named(image, one)?, named(image, other)?);
                let first = bytes(image, &one)?.clone();
                let second = std::mem::replace(bytes(image, &other)?, first);
                *bytes(image, &one)? = second;
            }
            Edit::Foreign { image: of, file } => {
                let images = image::all();
                let of = &images[usize::from(of) % images.len()];
                let path = named(of, file)?;
                let mut content = of.nodes.get(&path)?.clone()?;
                // Another store: its name in the header, and all checksums, are its own.
                if path.ends_with(".seg") && content.len() > 25 {
                    content[24] ^= 0xff;
                    repair::repair(&mut content);
                }
                put(image, path, Some(content));
            }
            Edit::Stray { name, bytes } => put(image, name.path(), Some(bytes.to_vec())),
            Edit::Directory { name } => {
                let path = name.path();
                image.nodes.remove(&path);
                put(image, path, None);
            }
        }
        Some(())
    }
}

fn repair_identity(image: &mut Image) {
    if let Some(file) = bytes(image, "identity") {
        for at in IDENTITY_OFFSETS {
            if let Some(copy) = file.get_mut(at..at + 512) {
                repair::repair_identity(copy);
            }
        }
    }
}

/// Makes the checksums of all segments right, and, if asked to, what each flush and each header says of the flush before.
fn repair_segments(image: &mut Image, chained: bool) {
    // The name of the files gives the order of the log, since they stand by shard and number.
    let segments = image.files().into_iter().filter(|path| path.ends_with(".seg"));
    let mut before: Option<(String, repair::End)> = None;
    for path in segments.collect::<Vec<_>>() {
        let Some(bytes) = bytes(image, &path) else { continue };
        if chained {
            let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned();
            let end = before.take().filter(|(of, _)| *of == dir).map(|(_, end)| end);
            before = Some((dir, repair::repair_chained(bytes, end)));
        } else {
            repair::repair(bytes);
        }
    }
}
