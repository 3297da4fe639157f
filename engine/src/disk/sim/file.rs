//! A file of a simulated disk.

use std::any::Any;
use std::io;

use super::faults::Op;
use super::{SimDisk, others_run};
use crate::disk::{Access, File, Mapping};

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) index: usize,
    pub(super) access: Access,
}

impl SimFile {
    pub(super) fn check_writable(&self) -> io::Result<()> {
        match self.access {
            Access::Write => Ok(()),
            Access::Read => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    fn grow(&self, bytes: u64, cut: bool) -> io::Result<()> {
        others_run();
        self.check_writable()?;
        let mut state = self.disk.state();
        state.meet(Op::Prepare)?;
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        state.room(self.index, bytes)?;
        if cut || bytes > state.files[self.index].live.len() {
            state.files[self.index].set_len(bytes);
        }
        Ok(())
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.powered()?;
        Ok(state.files[self.index].live.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        others_run();
        self.disk.state().read(self.index, offset, buffer, false)
    }

    fn read_direct_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        others_run();
        self.disk.state().read(self.index, offset, buffer, true)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        others_run();
        self.check_writable()?;
        self.disk.state().write_all(self.index, offset, bytes)
    }

    fn prepare(&self, bytes: u64) -> io::Result<()> {
        self.grow(bytes, false)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.grow(bytes, true)
    }

    fn sync(&self) -> io::Result<()> {
        others_run();
        self.disk.state().sync(self.index, None)
    }

    fn map(&self, bytes: u64) -> io::Result<Mapping> {
        let bytes = bytes.min(self.len()?.saturating_add(1));
        let mut map = vec![0; bytes as usize];
        self.read_at(0, &mut map)?;
        Ok(Mapping::Owned(map.into()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
